package lower_test

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/dataplane/lower"
)

// Who is told of the names that change, and of the common sets, knows what is to be known of every name.
func TestChangedSaysAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		state, told := drawState(t), map[string]lower.NameSets{}
		rules := drawRuleSet(t)
		for range rapid.IntRange(1, 6).Draw(t, "steps") {
			tables, err := state.Lower(rules)
			if err != nil {
				t.Fatal(err)
			}
			if tables.Common != state.Common() {
				t.Fatalf("common sets are %v in the tables, %v in the state", tables.Common, state.Common())
			}
			for _, name := range tables.Changed {
				told[name] = state.Sets(name)
			}
			for _, name := range append(slices.Collect(state.Names()), names...) {
				if got, want := told[name], state.Sets(name); got != want {
					t.Fatalf("%s: told %+v, want %+v", name, got, want)
				}
			}
			rules = drawNext(t, rules)
		}
	})
}

// long is a rule set with a list of so many names, and the name of each.
func long(t testing.TB, count int, without ...int) *ruleset.RuleSet {
	t.Helper()
	var patterns []domain.Pattern
	for i := range count {
		if !slices.Contains(without, i) {
			patterns = append(patterns, mustPattern(t, fmt.Sprintf("n%06d.test", i)))
		}
	}
	return ruleset.New([]ruleset.Policy{{
		Name: "policies/long", Workloads: []ruleset.Workload{{Host: true}}, Rules: []ruleset.Rule{{Domains: patterns}},
	}})
}

func mustPattern(t testing.TB, text string) domain.Pattern {
	t.Helper()
	p, err := domain.ParsePattern(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A pattern that leaves a long list changes that name alone, and gives all others another match set.
func TestRemovalFromALongList(t *testing.T) {
	const count = 1000
	state := lower.NewState(1, lower.Memory{})
	if _, err := state.Lower(long(t, count)); err != nil {
		t.Fatal(err)
	}
	stays := resolved(state, "n000000.test")
	tables, err := state.Lower(long(t, count, 500))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"n000500.test"}; !slices.Equal(tables.Changed, want) {
		t.Errorf("changed %v, want %v", tables.Changed, want)
	}
	now := resolved(state, "n000000.test")
	if now == stays || now.Exact == 0 {
		t.Errorf("a name that stays has %+v, and had %+v: want another match set", now, stays)
	}
	if state.Uses(lower.MatchSet(stays.Exact)) || !state.Uses(lower.MatchSet(now.Exact)) {
		t.Error("what names have is not what is used")
	}
	if got := state.Sets("n000500.test"); got != (lower.NameSets{}) {
		t.Errorf("what was removed has %+v", got)
	}
}

// Places are for the lists of most names, and given back.
func TestCommonPlaces(t *testing.T) {
	rules := func(lists, length int) *ruleset.RuleSet {
		policy := ruleset.Policy{Name: "policies/p", Workloads: []ruleset.Workload{{Host: true}}}
		for list := range lists {
			var patterns []domain.Pattern
			for i := range length * (list + 1) {
				patterns = append(patterns, mustPattern(t, fmt.Sprintf("n%04d.l%02d.test", i, list)))
			}
			policy.Rules = append(policy.Rules, ruleset.Rule{Domains: patterns})
		}
		return ruleset.New([]ruleset.Policy{policy})
	}
	state := lower.NewState(1, lower.Memory{})
	state.CommonFrom(8)
	places := func() (taken int) {
		for _, set := range state.Common() {
			if set != 0 {
				taken++
			}
		}
		return taken
	}
	for _, step := range []struct {
		lists, length, places int
		largest               bool // has a place
	}{
		{3, 8, 3, true}, {40, 8, 15, true}, {40, 2, 15, true}, {3, 1, 0, false}, {1, 8, 1, true}, {0, 0, 0, false},
	} {
		if _, err := state.Lower(rules(step.lists, step.length)); err != nil {
			t.Fatal(err)
		}
		if got := places(); got != step.places {
			t.Errorf("%d lists of %d and more: %d places are taken, want %d", step.lists, step.length, got, step.places)
		}
		if step.lists > 0 {
			name := fmt.Sprintf("n0000.l%02d.test", step.lists-1)
			if got := state.Sets(name).Exact.Place() != 0; got != step.largest {
				t.Errorf("%d lists of %d and more: the largest has a place: %v, want %v", step.lists, step.length, got, step.largest)
			}
		}
	}
}
