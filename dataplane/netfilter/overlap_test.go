package netfilter_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nameward/nameward/dataplane/netfilter"
	"github.com/nameward/nameward/dataplane/netfilter/netfiltertest"
)

// While two releases overlap, the rules of the older stand as they are, behind those by which the newer
// learns.
func TestOverlap(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend string) {
		bpfDir := netfiltertest.EnterNode(t)
		use := func() netfilter.InUse {
			t.Helper()
			found, err := netfilter.ProgramsInUse(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return found
		}
		inUse := func() []string { return use().Pins }
		if got := inUse(); len(got) > 0 {
			t.Errorf("in use before there are rules: %v", got)
		}
		ensure(t, open(t, config(backend, pinPrograms(t, bpfDir, "1"))))
		before, old, stood := rules(t, backend), inUse(), use().Rules
		if len(old) == 0 || slices.ContainsFunc(old, func(pin string) bool { return !strings.HasSuffix(pin, "-1") }) {
			t.Fatalf("in use: %v", old)
		}

		next := open(t, config(backend, pinPrograms(t, bpfDir, "2")))
		for range 2 { // as after a crash
			if err := next.Overlap(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		during := rules(t, backend)
		for rule := range strings.Lines(before) {
			if !strings.Contains(during, rule) && strings.HasPrefix(rule, "-A") {
				t.Errorf("gone while both overlap: %s", rule)
			}
		}
		var order []string
		for line := range strings.Lines(during) {
			if fields := strings.Fields(line); fields[1] == "-A" && !strings.HasPrefix(fields[2], "NAMEWARD-") {
				order = append(order, fields[0]+" "+fields[len(fields)-1])
			}
		}
		for _, family := range []string{"iptables", "ip6tables"} {
			for _, hook := range []string{"PREROUTING", "OUTPUT", "INPUT", "POSTROUTING"} {
				next := slices.Index(order, family+" NAMEWARD-NEXT-"+hook)
				if next < 0 || next+1 == len(order) || order[next+1] != family+" NAMEWARD-"+hook || slices.Contains(order[next+1:], order[next]) {
					t.Errorf("%s: jumps from %s are not one of each, the new one first: %q", family, hook, order)
				}
			}
		}
		if !strings.Contains(during, "dns_response-2") || strings.Contains(during, "egress_local-2") {
			t.Errorf("the new programs do not learn, or they judge:\n%s", during)
		}
		if got := inUse(); !slices.Equal(got, old) {
			t.Errorf("in use: %v, want %v", got, old)
		}
		expectInUse(t, backend, stood, func() string { return use().Rules })

		ensure(t, next)
		if after := rules(t, backend); strings.Contains(after, "NEXT") || strings.Contains(after, "-1 ") {
			t.Errorf("of the overlap is left:\n%s", after)
		}
	})
}

// expectInUse holds that what is in use is what was, whatever the newer release and others add behind, and that it
// is not once somebody takes away a rule without a program, or puts one before.
func expectInUse(t *testing.T, backend, stood string, inUse func() string) {
	t.Helper()
	iptables := func(line string) { command(t, "iptables-"+backend, strings.Fields(line)...) }
	iptables("-t mangle -A OUTPUT -j RETURN")
	iptables("-t filter -A FORWARD -j ACCEPT")
	if now := inUse(); now != stood {
		t.Errorf("what judges is another: %s", cmp.Diff(stood, now))
	}
	for change, back := range map[string]string{
		"-t filter -D OUTPUT 1":                                       "-t filter -I OUTPUT 1 -m comment --comment domain -j NAMEWARD-OUTPUT",
		"-t filter -I FORWARD -p tcp -j ACCEPT":                       "-t filter -D FORWARD 1",
		"-t mangle -R NAMEWARD-DENY 1 -m comment --comment x -j DROP": "",
	} {
		before := inUse()
		iptables(change)
		if inUse() == before {
			t.Errorf("%s goes unnoticed", change)
		}
		if back != "" {
			iptables(back)
		}
	}
}
