package enforcetest

import (
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/nameward/nameward/dataplane/enforce"
)

// Hooks is a fake of the packet filter: rules that stand or do not.
type Hooks struct {
	mu     sync.Mutex // guards all below
	broken []string
	fault  error
	count  int
	during func()
	called chan struct{}
}

// NewHooks returns hooks none of which stands yet.
func NewHooks() *Hooks {
	h := &Hooks{called: make(chan struct{})}
	h.Break()
	return h
}

// Ensure makes all stand and names those that did not.
func (h *Hooks) Ensure(ctx context.Context, mending func(faults []string)) ([]string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.count++
	close(h.called)
	h.called = make(chan struct{})
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if h.fault != nil {
		return nil, h.fault
	}
	mended := h.broken
	if len(mended) > 0 {
		mending(mended)
		if h.during != nil {
			h.during()
		}
	}
	h.broken = nil
	return mended, nil
}

// Break takes a rule away.
func (h *Hooks) Break() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.broken = append(h.broken, "rule was missing")
}

// During has a function called each time before something is mended.
func (h *Hooks) During(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.during = f
}

// Fail makes each Ensure return err; nil ends that.
func (h *Hooks) Fail(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fault = err
}

// Stand reports whether every rule stands.
func (h *Hooks) Stand() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.broken) == 0
}

// Ensured returns how often Ensure was called, and a channel that closes at the next call.
func (h *Hooks) Ensured() (int, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.count, h.called
}

// HooksSubject is what TestHooks tests: hooks none of which stands yet.
type HooksSubject interface {
	enforce.Hooks
	Break()      // takes a rule away
	Stand() bool // every rule stands
}

// TestHooks states what any Hooks must do.
func TestHooks(t *testing.T, newHooks func(t *testing.T) HooksSubject) {
	ensure := func(t *testing.T, hooks HooksSubject, mends bool) {
		t.Helper()
		var told []string
		mended, err := hooks.Ensure(t.Context(), func(faults []string) { told = append(told, faults...) })
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(told, mended) {
			t.Errorf("told of %q before, named %q", told, mended)
		}
		if mends != (len(mended) > 0) || slices.Contains(mended, "") {
			t.Errorf("Ensure named %q, want something: %v", mended, mends)
		}
		if !hooks.Stand() {
			t.Error("hooks do not stand after Ensure")
		}
	}
	t.Run("nothing stands before Ensure", func(t *testing.T) {
		if newHooks(t).Stand() {
			t.Error("hooks stand")
		}
	})
	t.Run("Ensure is idempotent", func(t *testing.T) {
		hooks := newHooks(t)
		ensure(t, hooks, true)
		ensure(t, hooks, false)
	})
	t.Run("what is broken is mended and named", func(t *testing.T) {
		hooks := newHooks(t)
		ensure(t, hooks, true)
		for range 3 {
			hooks.Break()
			ensure(t, hooks, true)
			ensure(t, hooks, false)
		}
	})
	t.Run("a cancelled Ensure says so", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := newHooks(t).Ensure(ctx, func([]string) {}); err == nil {
			t.Error("Ensure succeeded")
		}
	})
}
