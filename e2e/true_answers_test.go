package e2e_test

import (
	"net/netip"
	"testing"

	"github.com/nameward/nameward/e2e/lab"
)

// TestTrueAnswers: an answer of a server that the node does not trust opens nothing, and is counted.
func TestTrueAnswers(t *testing.T) {
	f := newFleet(t)
	policy := clientPolicy("api.example")
	f.put(policy)
	rogues := map[netip.Addr]netip.Addr{lab.RogueV4: lab.ResolverV4, lab.RogueV6: lab.ResolverV6}
	for rogue := range rogues {
		if _, err := f.Resolve(rogue, "api.example"); err == nil {
			t.Errorf("%s was reached although no rule allows it", rogue)
		}
	}
	policy.Rules = append(policy.Rules, rogueRule())
	f.put(policy)
	for rogue, resolver := range rogues {
		f.expectRefused(t, rogue, "api.example")
		f.expectOpen(t, resolver, "api.example")
	}
	f.counters(func(c map[string]uint64) bool {
		return c["dns_responses_untrusted"] >= 2 && c["dns_responses_learned"] >= 2
	})
}
