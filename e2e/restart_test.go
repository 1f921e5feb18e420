package e2e_test

import (
	"net/netip"
	"testing"

	"github.com/nameward/nameward/e2e/lab"
)

// TestRestartWithOtherFlags: what the agent is told at its next start holds, also for what is pinned: a
// resolver that is no longer trusted, another mark bit, another target of what is denied.
func TestRestartWithOtherFlags(t *testing.T) {
	forEachBackend(t, func(t *testing.T, backend string) {
		f := newFleet(t, "--iptables", backend, "--trusted-resolver", lab.RogueV4.String())
		policy := clientPolicy("*.fresh.example")
		policy.Rules = append(policy.Rules, rogueRule())
		f.put(policy)
		f.expectOpen(t, lab.RogueV4, lab.FreshName(1))
		f.expectRefused(t, lab.ResolverV4, "evil.example")
		f.must(f.agent.Stop())

		f.agentFlags = []string{"--iptables", backend, "--mark", "0x20000000", "--denied-target", "DROP"}
		f.startAgent()
		f.expectStillOpen(t, []netip.Addr{f.opened(t, lab.FreshName(1))[0]})
		f.expectOpen(t, lab.ResolverV4, lab.FreshName(2))
		for _, name := range []string{lab.FreshName(3), "evil.example"} {
			addresses, err := f.Resolve(lab.RogueV4, name)
			if err != nil {
				t.Fatalf("resolve %s: %v", name, err)
			}
			if err := f.Connect(addresses[0], lab.ServicePort); err == nil || lab.Refused(err) {
				t.Errorf("connect to %s: got %v, want no answer", name, err)
			}
		}
	})
}
