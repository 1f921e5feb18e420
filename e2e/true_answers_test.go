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
	f.countersUpstream(func(c map[string]uint64) bool {
		return c["dns_responses_untrusted"] >= 2 && c["dns_responses_learned"] >= 2
	})
}

// TestRogueFromTheSameSocket: a client asks a trusted resolver, which is silent, and a server of its own the
// same question from one socket. The query is outstanding; the answer of the other server opens nothing.
func TestRogueFromTheSameSocket(t *testing.T) {
	silent := netip.MustParseAddr("10.91.2.9")
	f := newFleet(t, "--trusted-resolver", silent.String())
	policy := clientPolicy("api.example")
	policy.Rules = append(policy.Rules, rogueRule())
	f.put(policy)
	addresses, err := f.AskBoth(silent, lab.RogueV4, "api.example")
	f.must(err)
	for _, address := range addresses {
		if err := f.Connect(address, lab.ServicePort); !lab.Refused(err) {
			t.Errorf("connect to %s after the other server's answer: got %v, want refused", address, err)
		}
	}
	f.counters(func(c map[string]uint64) bool {
		return c["dns_responses_untrusted"] >= 1 && c["dns_queries_remembered"] >= 1
	})
}
