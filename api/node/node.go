// Package node says what a node is called.
package node

import (
	"errors"
	"fmt"
	"strings"
)

// ErrBadID is wrapped by every error of ParseID.
var ErrBadID = errors.New("not a node id")

const (
	collection = "nodes/"
	maxID      = 253
)

// ID names a node: letters, digits, `.`, `_` and `-`, as host names have them. IDs are comparable.
type ID struct {
	resource string // the resource name, of which one is in every message; empty for none
}

// ParseID reads a node id.
func ParseID(s string) (ID, error) {
	if s == "" || len(s) > maxID {
		return ID{}, fmt.Errorf("%w: %q has %d characters, not 1 to %d", ErrBadID, s, len(s), maxID)
	}
	for i, r := range s {
		inner := i > 0 && i < len(s)-1
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
		case inner && strings.ContainsRune("._-", r):
		default:
			return ID{}, fmt.Errorf("%w: %q has %q at position %d", ErrBadID, s, r, i)
		}
	}
	return ID{collection + s}, nil
}

// ParseResourceName reads `nodes/{node}`.
func ParseResourceName(s string) (ID, error) {
	id, ok := strings.CutPrefix(s, collection)
	if !ok {
		return ID{}, fmt.Errorf("%w: %q does not begin with %q", ErrBadID, s, collection)
	}
	return ParseID(id)
}

// String returns the id.
func (id ID) String() string { return strings.TrimPrefix(id.resource, collection) }

// ResourceName returns `nodes/{node}`.
func (id ID) ResourceName() string {
	if id.resource == "" {
		return collection
	}
	return id.resource
}
