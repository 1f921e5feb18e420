package enforce

import (
	"sync"
	"time"

	"github.com/nameward/nameward/api/ruleset"
)

// Revision is a rule set and where it comes from. It is immutable.
type Revision struct {
	StoreID string // the store that Number is of
	Number  uint64
	Rules   *ruleset.RuleSet
	ID      ruleset.ID // of Rules
}

// State is what the reconciler has reached. It is immutable.
type State struct {
	InForce  *Revision // nil until one is in force, hooks included
	Since    time.Time // that InForce is
	Refusal  *Refusal  // of the newest wanted revision; nil when it is in force or not tried yet
	HooksErr error     // why the hooks could not be ensured
	SaveErr  error     // why what is in force, or what was, is not on disk
	Mended   uint64    // how many faults of the hooks were mended, those of the first time left out
	CutErr   error     // why connections may still be open that are no longer allowed
	Cut      CutCount  // what became of connections that are no longer allowed, since the start
}

// Refusal says that a revision could not be applied. The one before is still in force.
type Refusal struct {
	Revision *Revision
	Err      error
}

// latest is the newest value of something, and a channel that closes when there is a newer one.
type latest[T any] struct {
	mu      sync.Mutex // guards all below
	value   T
	changed chan struct{}
}

func newLatest[T any](value T) *latest[T] {
	return &latest[T]{value: value, changed: make(chan struct{})}
}

func (l *latest[T]) set(value T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.value = value
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *latest[T]) get() (T, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.value, l.changed
}
