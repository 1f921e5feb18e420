package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/controlplane/policy"
	"github.com/nameward/nameward/controlplane/storage"
)

// ErrNotRecorded says that a change was not made because the journal could not take it.
var ErrNotRecorded = errors.New("the change was not made: it cannot be put on record")

// Journal keeps on record what operators change.
type Journal interface {
	// Begin returns when a change is on record, durably; if it cannot be, the change is not made. end is called once
	// with how it ended: the revision, or why there is none. The journal must not change what it is given, and only
	// holds it until end.
	Begin(ctx context.Context, change Change) (end func(revision uint64, err error), err error)
}

// Change is what is about to be committed in place of what there is.
type Change struct {
	// Name is the resource name.
	Name string
	// Before is what there is, After what shall be; the zero State for none.
	Before, After State
	// Content is the digest of the record of After.
	Content [sha256.Size]byte
}

// State is one resource; the zero State is none.
type State struct {
	Policy    *policy.Policy
	DomainSet *policy.DomainSet
	Node      *Node
}

// IsZero reports whether there is no resource.
func (s State) IsZero() bool { return s == State{} }

// Revision returns that of the commit which wrote the resource, 0 for none.
func (s State) Revision() uint64 {
	switch {
	case s.Policy != nil:
		return s.Policy.Revision
	case s.DomainSet != nil:
		return s.DomainSet.Revision
	case s.Node != nil:
		return s.Node.revision
	}
	return 0
}

// RecordIn makes the journal that of all changes to come. It is called before there are any.
func (s *Store) RecordIn(journal Journal) { s.journal = journal }

// commit puts a change on record and commits it.
func (s *Store) commit(ctx context.Context, change Change, operations []storage.Operation, applied func(revision uint64)) error {
	end, err := s.journal.Begin(ctx, change)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotRecorded, err)
	}
	// Of an outcome that is not known, applied may be called later.
	var committed atomic.Uint64
	err = s.backend.Commit(ctx, operations, func(revision uint64) {
		applied(revision)
		committed.Store(revision)
	})
	if err != nil {
		end(0, err)
		return err //nolint:wrapcheck // the callers say what it was
	}
	end(committed.Load(), nil)
	return nil
}

// Fate says what became of a change whose process died on it.
type Fate int

// The fates of a change.
const (
	FateUnknown Fate = iota
	FateCommitted
	FateNotCommitted
)

// FateOf finds out what became of a change of a resource that was of the revision before, 0 for none, and was to have
// the content, nil to be deleted. Only what is there tells: of a resource that was changed again it is not known.
func (s *Store) FateOf(name string, before uint64, content []byte) (fate Fate, revision uint64, err error) {
	current, etagNow, err := s.stateOf(name)
	if err != nil {
		return FateUnknown, 0, err
	}
	now := current.Revision()
	switch {
	case now == before:
		return FateNotCommitted, 0, nil
	case now != 0 && etagNow != "" && etagNow == EtagOf(now, content):
		return FateCommitted, now, nil
	case content == nil && now == 0:
		return FateCommitted, 0, nil // of what revision nobody knows any more
	}
	return FateUnknown, 0, nil
}

// EtagOf returns the etag that a revision with a content has; empty where the content is none.
func EtagOf(revision uint64, content []byte) string {
	if len(content) != sha256.Size {
		return ""
	}
	return etag(revision, [sha256.Size]byte(content))
}

// stateOf returns what there is under a resource name, and its etag if it has one.
func (s *Store) stateOf(name string) (State, string, error) {
	txn := s.db.Txn(false)
	switch collectionOf(name) + "/" {
	case policy.Collection:
		p, err := s.lookUp(name)
		return State{Policy: p}, etagOf(p), err
	case policy.DomainSetCollection:
		set, err := findDomainSet(txn, name)
		return State{DomainSet: set}, etagOfSet(set), err
	case nodeCollection:
		id, err := node.ParseResourceName(name)
		if err != nil {
			return State{}, "", err //nolint:wrapcheck // names it
		}
		n, err := findNode(txn, id)
		return State{Node: n}, "", err
	}
	return State{}, "", nil
}

// Unmade reports whether a commit that ended with this error surely did not happen. After others it may have: what was
// written when the write failed may be there all the same.
func Unmade(err error) bool {
	if errors.Is(err, storage.ErrUnknownOutcome) {
		return false
	}
	for _, sure := range []error{storage.ErrConflict, storage.ErrClosed, storage.ErrUnavailable, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, sure) {
			return true
		}
	}
	return false
}

// noJournal keeps nothing.
type noJournal struct{}

func (noJournal) Begin(context.Context, Change) (func(uint64, error), error) {
	return func(uint64, error) {}, nil
}
