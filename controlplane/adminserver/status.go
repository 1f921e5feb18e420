// Package adminserver serves the API that operators use. Its methods check the request, ask the store, and
// answer; what went wrong becomes a gRPC status here and nowhere else.
package adminserver

import "log/slog"

// toStatus turns an error of any layer into a gRPC status with details, and logs what the client must not
// see. Handlers return toStatus(log, err) and build no status themselves.
func toStatus(log *slog.Logger, err error) error { panic("written next") }

// pageToken returns an opaque token of the page of a collection (`policies`) that begins after a key.
func pageToken(collection, after string) string { panic("written next") }

// parsePageToken returns the key that a token of that collection holds; "" for the empty token. An error
// is a *ruleset.FieldError on `page_token`.
func parsePageToken(collection, token string) (after string, err error) { panic("written next") }

// pageSize returns how many items a page has: 100 when unset, at most 1,000.
func pageSize(requested int32) int { panic("written next") }
