package enforce

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/nameward/nameward/api/ruleset"
)

const (
	// cutDebts is how many rule sets are remembered that connections may have been allowed by. Of more the
	// oldest stand for one that allowed everything, so that nothing stays open that should not.
	cutDebts = 16

	cutRetryFirst = time.Second // after a fault, doubled with each further one
	cutRetryLast  = time.Minute
)

// cutter has connections cut that are no longer allowed, beside the reconciler: a walk through all
// connections takes longer than a rule set may take to be in force. For what changes during a walk there
// is another one after it.
type cutter struct {
	conntrack Conntrack
	log       *slog.Logger
	asked     chan struct{} // holds one: there is something to do
	outcome   *latest[cutOutcome]

	mu    sync.Mutex // guards all below
	debts []debt
	after *ruleset.RuleSet
	last  uint64
}

// debt is a rule set that was in force, by which connections may be open that are no longer allowed.
type debt struct {
	number uint64
	rules  *ruleset.RuleSet
}

// cutOutcome is what the walks did, and why the last one could not do all.
type cutOutcome struct {
	count CutCount
	err   error
}

func newCutter(conntrack Conntrack, log *slog.Logger) *cutter {
	return &cutter{conntrack: conntrack, log: log, asked: make(chan struct{}, 1), outcome: newLatest(cutOutcome{})}
}

// change says that one rule set took the place of another.
func (c *cutter) change(before, after *ruleset.RuleSet) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	c.debts = append(c.debts, debt{c.last, before})
	if over := len(c.debts) - cutDebts; over > 0 {
		c.debts = slices.Delete(c.debts, 0, over)
		c.debts[0].rules = &ruleset.RuleSet{}
	}
	c.after = after
	select {
	case c.asked <- struct{}{}:
	default:
	}
}

// owes reports whether a walk is still to come, or to be ended.
func (c *cutter) owes() bool {
	before, _, _ := c.open()
	return len(before) > 0
}

// open returns the rule sets before, that in force, and the number of the last change.
func (c *cutter) open() (before []*ruleset.RuleSet, after *ruleset.RuleSet, last uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.debts {
		before = append(before, d.rules)
	}
	return before, c.after, c.last
}

// settle forgets the debts up to a change.
func (c *cutter) settle(number uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.debts = slices.DeleteFunc(c.debts, func(d debt) bool { return d.number <= number })
}

// run walks until ctx ends. No fault ends it.
func (c *cutter) run(ctx context.Context) error {
	retryAfter := cutRetryFirst
	for {
		done := c.walk(ctx)
		if done {
			retryAfter = cutRetryFirst
		}
		if !c.wait(ctx, done, retryAfter) {
			return nil
		}
		if !done {
			retryAfter = min(2*retryAfter, cutRetryLast)
		}
	}
}

// wait waits for a change, or until it is time to try again. It reports whether to go on.
func (c *cutter) wait(ctx context.Context, done bool, retryAfter time.Duration) bool {
	var retry <-chan time.Time
	if !done {
		timer := time.NewTimer(retryAfter)
		defer timer.Stop()
		retry = timer.C
	}
	select {
	case <-ctx.Done():
		return false
	case <-c.asked:
	case <-retry:
	}
	return true
}

// walk reports whether nothing is left to do of what was known when it began.
func (c *cutter) walk(ctx context.Context) bool {
	before, after, number := c.open()
	if len(before) == 0 {
		return true
	}
	count, err := c.conntrack.Cut(ctx, before, after)
	if err != nil && ctx.Err() != nil {
		return false // cut short is no fault to tell; the debt stays
	}
	if err == nil {
		c.settle(number)
	} else {
		err = fmt.Errorf("cut connections that are no longer allowed: %w", err)
		count.Faults = max(count.Faults, 1)
	}
	c.tell(count, err)
	return err == nil
}

// tell publishes the outcome of a walk, and logs what is news.
func (c *cutter) tell(count CutCount, err error) {
	old, _ := c.outcome.get()
	next := cutOutcome{count: old.count.plus(count), err: err}
	switch {
	case err != nil && old.err == nil:
		c.log.Error("connections that may no longer be allowed are still open", "err", err)
	case err != nil && old.err.Error() == err.Error():
		next.err = old.err // the same: no news
	case err == nil && old.err != nil:
		c.log.Info("connections that are no longer allowed are cut again")
	}
	if count.Cut+count.Kept > 0 {
		c.log.Info("established connections are no longer allowed", "cut", count.Cut, "kept", count.Kept)
	}
	c.outcome.set(next)
}
