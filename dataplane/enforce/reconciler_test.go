package enforce_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/dataplane/enforce"
	"github.com/nameward/nameward/dataplane/enforce/enforcetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is a reconciler on fakes, running inside a synctest bubble.
type node struct {
	*enforce.Reconciler
	maps  *enforcetest.Maps
	hooks *enforcetest.Hooks
	saver *enforcetest.Saver
	table *enforcetest.Conntrack
}

func start(t *testing.T, saved *enforce.Revision) node {
	return startFrom(t, enforcetest.NewMaps(10), enforce.Saved{Revision: saved})
}

// startFrom starts on hooks that stand.
func startFrom(t *testing.T, maps *enforcetest.Maps, saved enforce.Saved) node {
	t.Helper()
	hooks := enforcetest.NewHooks()
	if _, err := hooks.Ensure(t.Context(), func([]string) {}); err != nil {
		t.Fatal(err)
	}
	return startOn(t, maps, hooks, saved)
}

func startOn(t *testing.T, maps *enforcetest.Maps, hooks *enforcetest.Hooks, saved enforce.Saved) node {
	n := node{maps: maps, hooks: hooks, saver: &enforcetest.Saver{}, table: enforcetest.NewConntrack()}
	n.Reconciler = enforce.NewReconciler(n.maps, n.hooks, n.table, n.saver, slog.New(slog.DiscardHandler))
	n.Start(t.Context(), saved)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	synctest.Wait()
	return n
}

func (n node) reached() enforce.State {
	synctest.Wait()
	state, _ := n.State()
	return state
}

func revision(number uint64, patterns int) *enforce.Revision {
	rules := ruleset.New([]ruleset.Policy{{
		Name: "policies/p", Workloads: []ruleset.Workload{{Host: true}},
		Rules: []ruleset.Rule{{Domains: enforcetest.Patterns(patterns)}},
	}})
	return &enforce.Revision{StoreID: "store", Number: number, Rules: rules, ID: rules.ID()}
}

func TestNewestRevisionIsReached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := start(t, nil)
		if state := n.reached(); state.InForce != nil || !n.hooks.Stand() {
			t.Errorf("at start: in force %v, hooks stand %v; want none, true", state.InForce, n.hooks.Stand())
		}
		first, second := revision(1, 1), revision(2, 2)
		n.Want(first)
		if state := n.reached(); state.InForce != first || n.saver.Saved() != first {
			t.Errorf("in force %v, saved %v, want the first", state.InForce, n.saver.Saved())
		}
		n.Want(second)
		state := n.reached()
		if rules, _ := n.maps.Applied(); state.InForce != second || rules != second.Rules || n.saver.Saved() != second {
			t.Error("the second is not in force, in the maps and on disk")
		}
	})
}

func TestSavedRevisionIsInForceFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		saved := revision(7, 1)
		n := start(t, saved)
		if rules, count := n.maps.Applied(); n.reached().InForce != saved || rules != saved.Rules || count != 1 {
			t.Errorf("in force %v after %d calls of Apply, want the saved one after 1", n.reached().InForce, count)
		}
		renumbered := revision(8, 1)
		n.Want(renumbered)
		state := n.reached()
		if _, count := n.maps.Applied(); state.InForce != renumbered || count != 1 {
			t.Errorf("equal rules: %d calls of Apply, want 1", count)
		}
	})
}

func TestRefusedRevisionLeavesTheLastInForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := start(t, nil)
		good, tooBig := revision(1, 1), revision(2, 11)
		n.Want(good)
		n.reached()
		n.Want(tooBig)
		state := n.reached()
		if state.InForce != good || state.Refusal == nil || state.Refusal.Revision != tooBig || !errors.Is(state.Refusal.Err, enforce.ErrFull) {
			t.Errorf("state %+v, want the first in force and a refusal of the second with ErrFull", state)
		}
		if n.saver.Saved() != good {
			t.Error("what was refused is on disk")
		}
		n.Want(revision(3, 10))
		if state := n.reached(); state.InForce.Number != 3 || state.Refusal != nil {
			t.Errorf("state %+v, want the third in force", state)
		}
	})
}

func TestRefusedRevisionIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := start(t, nil)
		n.maps.Fail(errors.New("busy"))
		wanted := revision(1, 1)
		n.Want(wanted)
		n.reached()
		time.Sleep(9 * time.Second)
		if _, count := n.maps.Applied(); count != 1 {
			t.Errorf("%d calls of Apply within 9 s, want 1", count)
		}
		n.maps.Fail(nil)
		time.Sleep(5 * time.Second)
		if n.reached().InForce != wanted {
			t.Error("not in force once Apply succeeds")
		}
	})
}

func TestHooksAreMendedAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := start(t, nil)
		n.hooks.Break()
		time.Sleep(3 * time.Second)
		if state := n.reached(); !n.hooks.Stand() || state.Mended != 1 {
			t.Errorf("3 s later: stand %v, mended %d; want true, 1", n.hooks.Stand(), state.Mended)
		}
	})
}

// TestConnectionsAreJudgedOnceRulesStandAgain: nobody judged what was opened while rules were gone.
func TestConnectionsAreJudgedOnceRulesStandAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := start(t, nil)
		rules := revision(1, 1)
		n.Want(rules)
		walked := len(n.walks())
		n.hooks.Break()
		time.Sleep(3 * time.Second)
		walks := n.walks()
		if len(walks) != walked+1 {
			t.Fatalf("%d walks, want %d", len(walks), walked+1)
		}
		expectWalk(t, walks[walked], rules.Rules, &ruleset.RuleSet{})
		if left := n.saver.Retained(); len(left) != 0 {
			t.Errorf("%d rule sets are retained", len(left))
		}
	})
}

// An agent that ends between the mending and the walk leaves word for the next one, which finds nothing to mend.
func TestMissingRulesAreOnDiskBeforeTheyAreMended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := start(t, nil)
		n.Want(revision(1, 1))
		n.reached()
		var retained []*enforce.Revision
		n.hooks.During(func() { retained = n.saver.Retained() })
		n.hooks.Break()
		time.Sleep(3 * time.Second)
		if len(retained) != 1 || len(retained[0].Rules.Policies) != 0 {
			t.Errorf("before the rules were mended %v was retained, want that anything may have been allowed", retained)
		}
	})
}

// TestConnectionsAreJudgedAfterAStartWithoutRules: somebody took them away while there was no agent.
func TestConnectionsAreJudgedAfterAStartWithoutRules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		saved, maps := revision(1, 1), enforcetest.NewMaps(10)
		if err := maps.Apply(t.Context(), saved.Rules); err != nil {
			t.Fatal(err)
		}
		n := startOn(t, maps, enforcetest.NewHooks(), enforce.Saved{Revision: saved})
		walks := n.walks()
		if len(walks) != 1 {
			t.Fatalf("%d walks, want 1", len(walks))
		}
		expectWalk(t, walks[0], saved.Rules, &ruleset.RuleSet{})
	})
}

// askedApart is for how long after a look none is made because somebody asks.
const askedApart = 100 * time.Millisecond

func TestHooksAreLookedAtWhenAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := start(t, nil)
		time.Sleep(askedApart)
		n.hooks.Break()
		n.CheckHooks()
		if state := n.reached(); !n.hooks.Stand() || state.Mended != 1 {
			t.Errorf("at once: stand %v, mended %d; want true, 1", n.hooks.Stand(), state.Mended)
		}
		// Who asks without end has them looked at a few times at once, and then twice as often as without.
		before, _ := n.hooks.Ensured()
		for range 100_000 {
			n.CheckHooks()
			time.Sleep(200 * time.Microsecond)
		}
		synctest.Wait()
		if after, _ := n.hooks.Ensured(); after-before > 30 || after-before < 15 {
			t.Errorf("looked at %d times in 20 s", after-before)
		}
		time.Sleep(time.Minute)
		n.hooks.Break()
		n.CheckHooks()
		time.Sleep(askedApart)
		if n.reached(); !n.hooks.Stand() {
			t.Error("not mended at once after a quiet minute")
		}
	})
}

func TestNothingIsInForceWithoutHooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := start(t, nil)
		n.hooks.Fail(errors.New("no such table"))
		wanted := revision(1, 1)
		n.Want(wanted)
		if state := n.reached(); state.InForce != nil || state.HooksErr == nil || n.saver.Saved() != nil {
			t.Errorf("state %+v, saved %v, want nothing in force and an error", state, n.saver.Saved())
		}
		n.hooks.Fail(nil)
		time.Sleep(3 * time.Second)
		if state := n.reached(); state.InForce != wanted || state.HooksErr != nil || n.saver.Saved() != wanted {
			t.Errorf("state %+v, want the wanted one in force and saved", state)
		}
	})
}

func TestSaveIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := start(t, nil)
		n.saver.Fail(errors.New("disk full"))
		wanted := revision(1, 1)
		n.Want(wanted)
		if state := n.reached(); state.InForce != wanted || state.SaveErr == nil {
			t.Errorf("state %+v, want it in force with an error of the disk", state)
		}
		n.saver.Fail(nil)
		time.Sleep(3 * time.Second)
		if state := n.reached(); state.SaveErr != nil || n.saver.Saved() != wanted {
			t.Errorf("state %+v, want it saved", state)
		}
	})
}
