package enforce_test

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/dataplane/enforce"
	"github.com/nameward/nameward/dataplane/enforce/enforcetest"
)

// walks returns the rule sets before and after of each walk that has begun.
func (n node) walks() []enforcetest.Call {
	synctest.Wait()
	calls, _ := n.table.Calls()
	return calls
}

func expectWalk(t *testing.T, got enforcetest.Call, after *ruleset.RuleSet, before ...*ruleset.RuleSet) {
	t.Helper()
	same := func(a, b *ruleset.RuleSet) bool { return a.ID() == b.ID() }
	if !same(got.After, after) || !slices.EqualFunc(got.Before, before, same) {
		t.Errorf("walked from %d rule sets %v to %v, want from %v to %v", len(got.Before), got.Before, got.After, before, after)
	}
}

func TestConnectionsAreCutAtEachChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := start(t, nil)
		first, second := revision(1, 1), revision(2, 2)
		n.Want(first)
		n.reached()
		n.Want(second)
		n.reached()
		walks := n.walks()
		if len(walks) != 2 {
			t.Fatalf("%d walks, want 2", len(walks))
		}
		expectWalk(t, walks[0], first.Rules, &ruleset.RuleSet{})
		expectWalk(t, walks[1], second.Rules, first.Rules)
		if left := n.saver.Retained(); len(left) != 0 {
			t.Errorf("%d rule sets are retained", len(left))
		}
	})
}

// A change that comes during a walk, or while walks fail, is walked for, with all that was in force between.
func TestNoChangeIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := start(t, nil)
		held := make(chan struct{})
		n.table.Hold(held)
		first, second, third := revision(1, 1), revision(2, 2), revision(3, 3)
		for _, r := range []*enforce.Revision{first, second, third} {
			n.Want(r)
			if state := n.reached(); state.InForce != r {
				t.Fatalf("revision %d waits for a walk", r.Number)
			}
		}
		if got := n.saver.Retained(); len(got) != 3 || len(got[0].Rules.Policies) != 0 || got[1] != first || got[2] != second {
			t.Errorf("retained %v, want nothing, the first and the second", got)
		}
		n.table.Hold(nil)
		close(held)
		walks := n.walks()
		if len(walks) != 2 {
			t.Fatalf("%d walks, want 2", len(walks))
		}
		expectWalk(t, walks[1], third.Rules, first.Rules, second.Rules)
		if left := n.saver.Retained(); len(left) != 0 {
			t.Errorf("%d rule sets are retained", len(left))
		}
	})
}

func TestFaultsOfWalksShowAndEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := start(t, nil)
		n.table.Fail(errors.New("no socket"))
		first, second := revision(1, 1), revision(2, 2)
		n.Want(first)
		state := n.reached()
		if state.InForce != first || state.CutErr == nil || state.Cut.Faults != 1 {
			t.Errorf("state %+v, want the first in force, an error and a fault", state)
		}
		n.Want(second)
		n.reached()
		n.table.Fail(nil)
		time.Sleep(time.Minute)
		if state := n.reached(); state.CutErr != nil {
			t.Errorf("a minute later: %v", state.CutErr)
		}
		walks := n.walks()
		expectWalk(t, walks[len(walks)-1], second.Rules, &ruleset.RuleSet{}, first.Rules)
	})
}

func TestTooManyDebtsStandForEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := start(t, nil)
		n.table.Fail(errors.New("no socket"))
		for i := range 20 {
			n.Want(revision(uint64(i+1), i%9+1))
			n.reached()
		}
		walks := n.walks()
		last := walks[len(walks)-1]
		if len(last.Before) != 16 || len(last.Before[0].Policies) != 0 || len(last.Before[1].Policies) == 0 {
			t.Errorf("%d rule sets before, the first with %d policies, want 16, none", len(last.Before), len(last.Before[0].Policies))
		}
	})
}

func TestStartKnowsWhatWasInForce(t *testing.T) {
	saved := revision(7, 1)
	holding := func() *enforcetest.Maps {
		maps := enforcetest.NewMaps(10)
		if err := maps.Apply(t.Context(), saved.Rules); err != nil {
			t.Fatal(err)
		}
		return maps
	}
	t.Run("the saved one", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := startFrom(t, holding(), enforce.Saved{Revision: saved})
			if walks := n.walks(); len(walks) != 0 {
				t.Errorf("%d walks, want none", len(walks))
			}
			next := revision(8, 2)
			n.Want(next)
			n.reached()
			expectWalk(t, n.walks()[0], next.Rules, saved.Rules)
		})
	})
	t.Run("nothing, as after a boot", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := start(t, saved)
			expectWalk(t, n.walks()[0], saved.Rules, &ruleset.RuleSet{})
		})
	})
	t.Run("the saved one, and a walk was not done", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			before := revision(6, 3)
			n := startFrom(t, holding(), enforce.Saved{Revision: saved, Retained: []*ruleset.RuleSet{before.Rules}})
			expectWalk(t, n.walks()[0], saved.Rules, before.Rules)
		})
	})
}
