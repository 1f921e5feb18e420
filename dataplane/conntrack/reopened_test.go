package conntrack

import (
	"testing"

	"github.com/nameward/nameward/api/ruleset"
)

// A connection that was opened, and allowed, on the ports of one that was denied is one like any other: where the
// rules no longer allow it, it is cut, and its next denial counts.
func TestReopenedConnectionIsCut(t *testing.T) {
	m := newMachine(t, true)
	c := tcp("10.1.2.3", "198.51.100.1", 443)
	m.Open(c)
	label := func(set ...int) {
		t.Helper()
		if _, err := m.native.list(func(e *entry) {
			if err := m.native.relabel([]relabelling{{entry: e, set: set}})[0]; err != nil {
				t.Error(err)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(fact string, want ...int) {
		t.Helper()
		if _, err := m.native.list(func(e *entry) {
			for _, bit := range []int{reopenedLabel, cutLabel, deniedLabel} {
				wanted := false
				for _, w := range want {
					wanted = wanted || w == bit
				}
				if e.labelled(bit) != wanted {
					t.Errorf("%s: label %d is %t", fact, bit, !wanted)
				}
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	from := fromCIDRs("10.1.0.0/16")
	allows, denies := rulesFor(from, "198.51.100.0/24"), rulesFor(from, "192.0.2.0/24")
	turn := func(before, after *ruleset.RuleSet) {
		t.Helper()
		if _, err := m.Cut(t.Context(), []*ruleset.RuleSet{before}, after); err != nil {
			t.Fatal(err)
		}
	}
	label(deniedLabel, reopenedLabel)
	turn(allows, denies)
	expect("no longer allowed", cutLabel)
	label(deniedLabel, reopenedLabel)
	turn(denies, rulesFor(from, "203.0.113.0/24"))
	expect("reopened, and denied still", cutLabel)
	label(deniedLabel, reopenedLabel)
	turn(denies, allows)
	expect("allowed again")
}
