package bpf_test

import (
	"net/netip"
	"testing"

	"github.com/miekg/dns"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
)

// Resolvers that the settings name are trusted without a look at the others, and no other endpoint is: neither by its
// port nor by its protocol.
func TestNearResolvers(t *testing.T) {
	e := newExchange(t)
	near := []netip.AddrPort{netip.MustParseAddrPort("10.0.0.54:53"), netip.MustParseAddrPort("10.0.0.55:5353")}
	e.Settings(func(s *bpf.DatapathSettings) {
		for i, resolver := range near {
			s.Resolvers[i] = endpoint(resolver, bpftest.UDP)
		}
	})
	for _, c := range []struct {
		resolver string
		want     uint64
	}{
		{"10.0.0.53:53", 1}, // of endpoints alone
		{"10.0.0.54:53", 1}, {"10.0.0.55:5353", 1}, {"10.0.0.55:53", 0}, {"10.0.0.54:5353", 0}, {"10.0.0.56:53", 0},
	} {
		e.ResetCounters()
		e.resolver = netip.MustParseAddrPort(c.resolver)
		e.ask("api.example.com", dns.TypeA)
		if got := e.Counter(bpf.DatapathCounterCOUNTER_QUERY); got != c.want {
			t.Errorf("questions to %s that were remembered: %d, want %d", c.resolver, got, c.want)
		}
	}
}
