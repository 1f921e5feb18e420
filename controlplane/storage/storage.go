// Package storage is the seam between the store and what keeps it. Operations go in as batches, each of which becomes
// one revision; records come out at load, and, where others write too, as changes. What Commit acknowledged survives
// the death of the process and of the machine.
package storage

import (
	"context"
	"errors"
	"strings"
)

var (
	// ErrConflict is returned by Commit when an object was not as the operation expected.
	ErrConflict = errors.New("object has another revision")
	// ErrClosed is returned by Commit after Close.
	ErrClosed = errors.New("storage is closed")
	// ErrCorrupt is wrapped by errors about what is on disk and cannot be read. They name the key.
	ErrCorrupt = errors.New("record is corrupt")
	// ErrUnavailable says that the storage cannot be reached, and that nothing was written.
	ErrUnavailable = errors.New("storage cannot be reached: nothing was changed")
	// ErrUnknownOutcome says that the storage could not be reached while it was written to: the change may have been
	// made, or may still be. Who reads it back, once that works, knows.
	ErrUnknownOutcome = errors.New("storage was lost while it was written to: whether the change was made is not known")
)

// Backend keeps objects under keys of the form `collection/id`. Its methods are safe for concurrent use.
type Backend interface {
	// Load calls record for every object, in order of the keys, and stops at its first error. The slices
	// of a Record belong to the callee.
	Load(ctx context.Context, record func(Record) error) (Meta, error)

	// Commit makes the operations durable as one revision, all or none; ErrConflict when one of them
	// expected something else. After that, and before it returns, it calls applied: of all commits
	// one at a time and in order of their revisions, possibly on the goroutine of another caller. A
	// context that ends before the commit was begun withdraws it; afterwards its outcome is awaited. Where it returns
	// ErrUnknownOutcome, applied may be called later.
	Commit(ctx context.Context, operations []Operation, applied func(revision uint64)) error

	// Sync returns when everything that any server committed before the call has been applied here. ErrUnavailable
	// when that cannot be known.
	Sync(ctx context.Context) error

	// Close waits for the commit under way and releases the storage.
	Close() error
}

// Shared is a storage that other servers write to as well.
type Shared interface {
	Backend

	// Follow reads what is committed, from what Load read on, until ctx ends: Commit and Sync wait for that. follower
	// gets the commits of other servers, one at a time and in order with the calls of applied.
	Follow(ctx context.Context, follower Follower) error
}

// Directory knows the servers that run on a storage.
type Directory interface {
	// ID returns that of this server, another one at each start.
	ID() string
	// Servers returns the others, and a channel that closes when it may be worth to look again.
	Servers() (others []Server, changed <-chan struct{})
}

// Server is one that runs on a storage.
type Server struct {
	ID string `json:"-"`
	// Advertise is the address at which the others reach it, HOST:PORT.
	Advertise string `json:"advertise"`
}

// Follower takes in what other servers commit.
type Follower interface {
	// Apply makes a change visible. After an error everything is loaded anew.
	Apply(change Change) error
	// Reload takes everything in place of what was known, where changes were lost. load is what Backend.Load does.
	Reload(load func(record func(Record) error) (Meta, error)) error
}

// Change is a commit of another server.
type Change struct {
	Revision uint64
	// Records are in order of the keys; of an object that is gone, Value is nil.
	Records []Record
}

// Record is an object on disk.
type Record struct {
	Key string
	// Revision is that of the commit which wrote it.
	Revision uint64
	Value    []byte
}

// Meta says which storage this is and how far it got.
type Meta struct {
	// StoreID is random, made with the storage: revisions of another store mean nothing here.
	StoreID string
	// Revision is that of the last commit; 1 when there was none.
	Revision uint64
	// Collections holds the revision of the last commit that changed each collection, deletions included.
	Collections map[string]uint64
}

// Operation writes or deletes one object, or only looks at what is there.
type Operation struct {
	// Key is that of the object, or for Unchanged that of a collection.
	Key string
	// Value is what to write; nil deletes.
	Value    []byte
	Expected Expectation
	// Looks says that nothing is written.
	Looks bool
}

// Require is an operation that conflicts unless there is such an object, whatever its revision.
func Require(key string) Operation {
	return Operation{Key: key, Expected: Expectation{guarded: true, present: true}, Looks: true}
}

// Unchanged is an operation that conflicts when a collection was changed by a commit behind this revision.
func Unchanged(collection string, revision uint64) Operation {
	return Operation{Key: collection, Expected: Expectation{guarded: true, revision: revision}, Looks: true}
}

// OfCollection reports whether the operation is about a whole collection.
func (o Operation) OfCollection() bool { return !strings.Contains(o.Key, "/") }

// Collection returns the collection of the object.
func (o Operation) Collection() string { return CollectionOf(o.Key) }

// CollectionOf returns the collection of a key.
func CollectionOf(key string) string {
	collection, _, _ := strings.Cut(key, "/")
	return collection
}

// Expectation guards an operation. The zero Expectation accepts whatever there is.
type Expectation struct {
	guarded, present bool
	revision         uint64
}

// ExpectAbsent accepts only that there is no such object.
func ExpectAbsent() Expectation { return Expectation{guarded: true} }

// ExpectRevision accepts only the object that the commit of this revision wrote.
func ExpectRevision(revision uint64) Expectation {
	return Expectation{guarded: true, revision: revision}
}

// Accepts reports whether the expectation is met by an object of this revision, 0 for none.
func (e Expectation) Accepts(revision uint64) bool {
	switch {
	case !e.guarded:
		return true
	case e.present:
		return revision != 0
	}
	return e.revision == revision
}

// Met returns ErrConflict, and the key, unless the operation finds what it expects: object returns the revision of an
// object, 0 for none, collection that of the last change of a collection.
func (o Operation) Met(object, collection func(key string) uint64) error {
	if o.Looks && o.OfCollection() {
		if collection(o.Key) > o.Expected.revision {
			return conflict(o.Key)
		}
		return nil
	}
	if !o.Expected.Accepts(object(o.Key)) {
		return conflict(o.Key)
	}
	return nil
}

func conflict(key string) error { return &conflictError{key} }

// conflictError is an ErrConflict.
type conflictError struct{ key string }

// Error names the key.
func (e *conflictError) Error() string { return e.key + ": " + ErrConflict.Error() }

// Unwrap returns ErrConflict.
func (e *conflictError) Unwrap() error { return ErrConflict }
