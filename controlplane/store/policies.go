package store

import (
	"context"

	"github.com/nameward/nameward/controlplane/policy"
	"github.com/nameward/nameward/controlplane/storage"
)

// Guard says what must be so for a change to happen. The zero Guard asks for nothing.
type Guard struct {
	// Etag, if set, is that of the object to change; ErrStale when it has another, or is gone.
	Etag string
	// MustExist makes it ErrNotFound when there is no such object.
	MustExist bool
	// MustNotExist makes it ErrExists when there is one.
	MustNotExist bool
}

// Policy returns the policy of a resource name, or ErrNotFound.
func (s *Store) Policy(name string) (*policy.Policy, error) { panic("written next") }

// ListPolicies returns up to limit policies whose names come after the given one, in order of the names,
// and whether there are more.
func (s *Store) ListPolicies(after string, limit int) (policies []*policy.Policy, more bool, err error) {
	panic("written next")
}

// Policies returns every policy in order of evaluation (priority, then name), the revision at which they
// last changed, and a channel that closes when any of them changes. The revision stays the same over a
// restart and is not moved by changes of other objects.
func (s *Store) Policies() (policies []*policy.Policy, revision uint64, changed <-chan struct{}) {
	panic("written next")
}

// PutPolicy makes or replaces a policy and returns it as stored, with its new etag and times. It returns
// when the policy is durable and visible to readers. Where it would change nothing, it writes nothing and
// returns the policy that there is. Etag and times of p itself are ignored.
func (s *Store) PutPolicy(ctx context.Context, p *policy.Policy, guard Guard) (*policy.Policy, error) {
	panic("written next")
}

// DeletePolicy deletes a policy; ErrNotFound when there is none. It returns when that is durable and
// visible to readers.
func (s *Store) DeletePolicy(ctx context.Context, name string, guard Guard) error {
	panic("written next")
}

func readPolicy(record storage.Record) (*policy.Policy, error) { panic("written next") }
