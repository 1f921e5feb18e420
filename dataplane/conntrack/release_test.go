package conntrack

import (
	"testing"

	"github.com/nameward/nameward/api/ruleset"
)

// A connection that passes the node's other rules does so no longer when no policy selects it, and that
// alone.
func TestAcceptedConnectionsAreReleased(t *testing.T) {
	m := newMachine(t, true)
	mine, other := tcp("10.1.2.3", "198.51.100.1", 443), tcp("10.2.2.3", "198.51.100.1", 443)
	accepted := func(c ruleset.Connection) (is bool) {
		if _, err := m.native.list(func(e *entry) {
			is = is || e.original.source.Addr() == c.Source && e.labelled(acceptedLabel)
		}); err != nil {
			t.Fatal(err)
		}
		return is
	}
	for _, c := range []ruleset.Connection{mine, other} {
		m.Open(c)
	}
	if _, err := m.native.list(func(e *entry) {
		if err := m.native.relabel([]relabelling{{entry: e, set: []int{acceptedLabel}}})[0]; err != nil {
			t.Error(err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	both := rulesFor(fromCIDRs("10.1.0.0/16", "10.2.0.0/16"), "198.51.100.0/24")
	one := rulesFor(fromCIDRs("10.1.0.0/16"), "198.51.100.0/24")
	for _, step := range []struct {
		fact          string
		before, after *ruleset.RuleSet
		mine, other   bool
	}{
		{"nothing changes", both, both, true, true},
		{"one workload is no longer selected", both, one, true, false},
		{"the last policy is gone", one, &ruleset.RuleSet{}, false, false},
	} {
		if _, err := m.Cut(t.Context(), []*ruleset.RuleSet{step.before}, step.after); err != nil {
			t.Fatal(err)
		}
		if accepted(mine) != step.mine || accepted(other) != step.other {
			t.Errorf("%s: accepted %t and %t, want %t and %t", step.fact, accepted(mine), accepted(other), step.mine, step.other)
		}
	}
}
