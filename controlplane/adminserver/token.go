package adminserver

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"strings"

	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/controlplane/policy"
)

const (
	defaultPageSize = 100
	maxPageSize     = 1000
	// resumeKind is the kind of a watch's tokens. It is the name of no collection.
	resumeKind = "resume"
)

// pageSize returns how many items a page has: 100 when unset, at most 1,000.
func pageSize(requested int32) int {
	if requested == 0 {
		return defaultPageSize
	}
	return int(min(requested, maxPageSize))
}

// domainPageSize returns how many domains a page has: 1,000 when unset, at most 10,000.
func domainPageSize(requested int32) int {
	if requested == 0 {
		return maxPageSize
	}
	return int(min(requested, policy.MaxInlineDomains))
}

// pageToken returns an opaque token of the page of a collection (`policies`) that begins after a key.
func pageToken(collection, after string) string { return sealToken(collection, after) }

// parsePageToken returns the key that a token of that collection holds; "" for the empty token. An error
// is a *ruleset.FieldError on `page_token`.
func parsePageToken(collection, token string) (after string, err error) {
	if token == "" {
		return "", nil
	}
	after, err = openToken(collection, token)
	if err != nil {
		return "", &ruleset.FieldError{Field: "page_token", Value: token, Reason: "is not the next_page_token of a page of this list"}
	}
	return after, nil
}

// resumeToken returns the token of a position in a watch.
func resumeToken(storeID string, revision uint64) string {
	return sealToken(resumeKind, string(binary.BigEndian.AppendUint64(nil, revision))+storeID)
}

// parseResumeToken returns what the token was made of, which need not be this store.
func parseResumeToken(token string) (storeID string, revision uint64, err error) {
	text, err := openToken(resumeKind, token)
	if err != nil || len(text) < 8 {
		return "", 0, &ruleset.FieldError{Field: "resume_token", Value: token, Reason: "is not the resume_token of a response of this watch"}
	}
	return text[8:], binary.BigEndian.Uint64([]byte(text)), nil
}

var errBadToken = errors.New("not a token of this kind")

// sealToken makes a token of a text. Its checksum tells it from what was cut, mistyped or made up; it is no
// secret and guards nothing.
func sealToken(kind, text string) string {
	content := []byte(kind + "\x00" + text)
	sum := binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(content))
	return base64.RawURLEncoding.EncodeToString(append(sum, content...))
}

func openToken(kind, token string) (string, error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(raw) < 4 || binary.BigEndian.Uint32(raw) != crc32.ChecksumIEEE(raw[4:]) {
		return "", errBadToken
	}
	text, ok := strings.CutPrefix(string(raw[4:]), kind+"\x00")
	if !ok {
		return "", errBadToken
	}
	return text, nil
}
