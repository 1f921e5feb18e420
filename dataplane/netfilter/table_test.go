package netfilter

import (
	"strings"
	"testing"
)

// What others insert between a listing and the transaction that is made from it is not deleted in the place of ours.
func TestJumpsAreDeletedByWhatTheySay(t *testing.T) {
	tables := wantedTables(Config{AllowedTarget: Return, DeniedTarget: Reject}, ipv4)
	for _, table := range tables {
		hook := table.jumps[0].hook
		have := listing{hook: {"-j ACCEPT", table.jumps[0].rule}}
		want := "-D " + hook + " " + table.jumps[0].rule + "\n"
		if got := table.transaction(have); !strings.Contains(got, want) {
			t.Errorf("transaction without %q:\n%s", want, got)
		}
	}
	if got, want := deletion("INPUT", 2, "-m bpf --object-pinned /x -j NAMEWARD-INPUT"), "-D INPUT 3\n"; got != want {
		t.Errorf("of a rule with a program: got %q, want %q", got, want)
	}
}
