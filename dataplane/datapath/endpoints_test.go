package datapath

import (
	"net/netip"
	"testing"

	"github.com/nameward/nameward/bpf"
)

// The resolvers that programs find without a look-up are the first of those that are trusted, and one that is trusted
// no longer is not among them.
func TestNearResolversAreTrusted(t *testing.T) {
	f := newFixture(t)
	a, b, c := netip.MustParseAddrPort("10.0.0.1:53"), netip.MustParseAddrPort("[2001:db8::1]:53"), netip.MustParseAddrPort("10.0.0.3:53")
	for _, resolvers := range [][]netip.AddrPort{{a, b, c}, {c}, {}, {b, a}} {
		if err := f.SetEndpoints(resolvers, []netip.AddrPort{testServer}); err != nil {
			t.Fatal(err)
		}
		settings, err := f.kernel.settings()
		if err != nil {
			t.Fatal(err)
		}
		var want [2]bpf.DatapathEndpointKey
		for i, r := range resolvers[:min(len(resolvers), len(want))] {
			want[i] = endpoint(r, 17)
		}
		if settings.Resolvers != want {
			t.Errorf("near of %v: %v, want %v", resolvers, settings.Resolvers, want)
		}
	}
}
