package store

import (
	"context"
	"iter"

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
	panic("written next")
}
