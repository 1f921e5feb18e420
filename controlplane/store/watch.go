package store

import (
	"context"
	"fmt"
	"iter"

	"github.com/hashicorp/go-memdb"

	"github.com/nameward/nameward/controlplane/policy"
)

// PolicyChange is one step of a watch. Policy is set when it was put, Deleted when it is gone, neither in
// the step that ends a snapshot.
type PolicyChange struct {
	Policy *policy.Policy
	// Deleted is the name of the policy that is gone.
	Deleted string
	// Reset says: forget what you know, a snapshot begins with this step.
	Reset bool
	// Synced ends a snapshot: the steps so far are the whole state of one revision.
	Synced bool
	// Revision is what to go on from when the watch breaks after this step. 0 within a snapshot, which
	// has to begin anew.
	Revision uint64
}

// WatchPolicies follows the policies until ctx ends. After revision 0 it begins with a snapshot, otherwise
// with the changes since that revision; when the store no longer has them, or never reached the revision,
// with Reset and a snapshot. Also a reader that falls behind the history gets Reset and a snapshot: nothing
// is queued for it, and writers never wait.
func (s *Store) WatchPolicies(ctx context.Context, after uint64) iter.Seq[PolicyChange] {
	return func(yield func(PolicyChange) bool) {
		position, ok := s.resume(after)
		for reset := after != 0; ctx.Err() == nil; reset = true {
			if !ok {
				var goOn bool
				if position, goOn = s.yieldSnapshot(ctx, reset, yield); !goOn {
					return
				}
			}
			if !yieldChanges(ctx, position, yield) {
				return
			}
			ok = false
		}
	}
}

// resume returns the position of a reader that has everything up to a revision.
func (s *Store) resume(after uint64) (*event, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.history.since(after)
}

// yieldSnapshot yields every policy and the step that ends the snapshot, and returns the position from
// which its revision is left behind; false when the reader has had enough.
func (s *Store) yieldSnapshot(ctx context.Context, reset bool, yield func(PolicyChange) bool) (*event, bool) {
	txn, revision, position := s.snapshot()
	objects, err := txn.Get(tablePolicies, indexID)
	if err != nil {
		panic(fmt.Sprintf("walk policies: %v", err)) // the schema lacks the index
	}
	for object := objects.Next(); object != nil; object = objects.Next() {
		p := object.(*policy.Policy) // the index refuses other types
		if ctx.Err() != nil || !yield(PolicyChange{Policy: p, Reset: reset}) {
			return nil, false
		}
		reset = false
	}
	return position, yield(PolicyChange{Reset: reset, Synced: true, Revision: revision})
}

// snapshot returns the policies, their revision and the last change that is part of them.
func (s *Store) snapshot() (*memdb.Txn, uint64, *event) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.db.Txn(false), s.policyRevision, s.history.latest
}

// yieldChanges yields the changes behind a position as they come. It returns true when the reader fell out
// of the history, false when it has had enough or ctx ended.
func yieldChanges(ctx context.Context, position *event, yield func(PolicyChange) bool) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-position.linked:
		}
		next := position.next.Load()
		if next == nil {
			return true
		}
		if ctx.Err() != nil || !yield(PolicyChange{Policy: next.put, Deleted: next.deleted, Revision: next.revision}) {
			return false
		}
		position = next
	}
}
