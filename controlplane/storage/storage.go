// Package storage is the seam between the store and what keeps it on disk. Operations go in as batches,
// each of which becomes one revision; records come out at load. What Commit acknowledged survives the
// death of the process and of the machine.
package storage

import (
	"context"
	"errors"
)

var (
	// ErrConflict is returned by Commit when an object was not as the operation expected.
	ErrConflict = errors.New("object has another revision")
	// ErrClosed is returned by Commit after Close.
	ErrClosed = errors.New("storage is closed")
	// ErrCorrupt is wrapped by errors about what is on disk and cannot be read. They name the key.
	ErrCorrupt = errors.New("record is corrupt")
)

// Backend keeps objects under keys of the form `collection/id`. Its methods are safe for concurrent use.
type Backend interface {
	// Load calls record for every object, in order of the keys, and stops at its first error. The slices
	// of a Record belong to the callee.
	Load(record func(Record) error) (Meta, error)

	// Commit makes the operations durable as one revision, all or none; ErrConflict when one of them
	// expected something else. After that, and before it returns, it calls applied: of all commits
	// one at a time and in order of their revisions, possibly on the goroutine of another caller. A
	// context that ends before the commit was begun withdraws it; afterwards its outcome is awaited.
	Commit(ctx context.Context, operations []Operation, applied func(revision uint64)) error

	// Close waits for the commit under way and releases the storage.
	Close() error
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

// Operation writes or deletes one object.
type Operation struct {
	Key string
	// Value is what to write; nil deletes.
	Value    []byte
	Expected Expectation
}

// Expectation guards an operation. The zero Expectation accepts whatever there is.
type Expectation struct {
	guarded  bool
	revision uint64
}

// ExpectAbsent accepts only that there is no such object.
func ExpectAbsent() Expectation { return Expectation{guarded: true} }

// ExpectRevision accepts only the object that the commit of this revision wrote.
func ExpectRevision(revision uint64) Expectation {
	return Expectation{guarded: true, revision: revision}
}

// Accepts reports whether the expectation is met by an object of this revision, 0 for none.
func (e Expectation) Accepts(revision uint64) bool { return !e.guarded || e.revision == revision }
