package bpf_test

import (
	"net/netip"
	"testing"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
)

// TestHosts: an address that is named whole goes before every prefix, and is found without one.
func TestHosts(t *testing.T) {
	g := newGate(t, enforced)
	host := func(generation uint32, address string, class uint32) {
		g.Host(generation, netip.MustParseAddr(address), bpf.DatapathSourceClass{Class: class})
	}
	host(0, "10.1.0.9", 12) // of a workload that nobody selects
	host(0, "10.9.0.9", workloadClass)
	host(0, "fd09::9", workloadClass)
	host(1, "10.9.0.8", workloadClass) // of the other generation
	const prefixes, hosts = bpf.DatapathGenerationFlagGENERATION_SOURCES, bpf.DatapathGenerationFlagGENERATION_HOSTS
	for _, c := range []struct {
		flags bpf.DatapathGenerationFlag
		from  string
		want  uint32
	}{
		{prefixes | hosts, "10.1.0.8:4000", 1},
		{prefixes | hosts, "10.1.0.9:4000", 0},
		{prefixes | hosts, "10.9.0.9:4000", 1},
		{prefixes | hosts, "[fd09::9]:4000", 1},
		{prefixes | hosts, "10.9.0.8:4000", 0},
		{hosts, "10.9.0.9:4000", 1},
		{hosts, "10.1.0.8:4000", 0},
		{prefixes, "10.1.0.9:4000", 1},
		{prefixes, "10.9.0.9:4000", 0},
	} {
		g.flags(bpf.DatapathGenerationFlagGENERATION_ENFORCES | c.flags)
		to := "192.0.2.1:443"
		if c.from[0] == '[' {
			to = "[2001:db8::1]:443"
		}
		packet := bpftest.Connection(bpftest.TCP, netip.MustParseAddrPort(c.from), netip.MustParseAddrPort(to))
		if got := g.Run(g.EgressForwarded, packet); got != c.want {
			t.Errorf("flags %b, from %s: verdict %d, want %d", c.flags, c.from, got, c.want)
		}
	}
}

// TestLongestSource: of all prefixes in hosts that an address has, the longest says its class, in the family of the
// address; and before any that is in the trie.
func TestLongestSource(t *testing.T) {
	g := newGate(t, enforced) // with fd01::/16 and 10.1.0.0/16 in the trie
	const none = 12           // class of a workload that nobody selects
	lay := func(generation uint32, classes map[string]uint32) {
		sources := map[bpf.Source]bpf.DatapathSourceClass{}
		for prefix, class := range classes {
			sources[bpftest.Source(netip.MustParsePrefix(prefix))] = bpf.DatapathSourceClass{Class: class}
		}
		g.LayHosts(generation, sources)
	}
	lay(1, map[string]uint32{"0.0.0.0/0": workloadClass, "::/0": workloadClass}) // which nothing looks at
	const cells, both = bpf.DatapathGenerationFlagGENERATION_HOSTS, bpf.DatapathGenerationFlagGENERATION_HOSTS | bpf.DatapathGenerationFlagGENERATION_SOURCES
	nested := map[string]uint32{
		"10.0.0.0/8": workloadClass, "10.64.0.0/10": none, "10.64.7.0/24": workloadClass, "10.64.7.9/32": none,
		"::/0": none, "fd00::/8": workloadClass, "fd00:1::/32": none, "fd00:1::/104": workloadClass, "fd00:1::9/128": none,
	}
	everything := map[string]uint32{"0.0.0.0/0": workloadClass, "128.0.0.0/1": none, "::/0": none, "::/96": workloadClass, "::ffff:0:0/95": workloadClass}
	for _, c := range []struct {
		flags   bpf.DatapathGenerationFlag
		sources map[string]uint32
		from    string
		want    uint32
	}{
		{cells, nested, "10.0.0.1", 1},
		{cells, nested, "10.127.255.255", 0},
		{cells, nested, "10.64.6.255", 0},
		{cells, nested, "10.64.7.0", 1},
		{cells, nested, "10.64.7.9", 0},
		{cells, nested, "10.64.7.255", 1},
		{cells, nested, "11.0.0.0", 0},
		{cells, nested, "9.255.255.255", 0},
		{cells, nested, "::ffff:10.64.7.8", 1},
		{cells, nested, "::ffff:10.64.7.9", 0},
		{cells, nested, "fd00::", 1},
		{cells, nested, "fdff:ffff::1", 1},
		{cells, nested, "fd00:1:1::1", 0},
		{cells, nested, "fd00:1::8", 1},
		{cells, nested, "fd00:1::9", 0},
		{cells, nested, "fd00:1::100:0", 0},
		{cells, nested, "fe00::1", 0},
		{cells, everything, "127.255.255.255", 1},
		{cells, everything, "128.0.0.0", 0},
		{cells, everything, "255.255.255.254", 0},
		{cells, everything, "::ffff:0.0.0.1", 1},
		{cells, everything, "::fffe:a00:1", 1},
		{cells, everything, "::a00:1", 1},
		{cells, everything, "::1:0:a00:1", 0},
		{cells, everything, "fd01::1", 0},
		{both, map[string]uint32{"10.1.0.9/32": none}, "10.1.0.9", 0},
		{both, map[string]uint32{"10.1.0.9/32": none}, "10.1.0.8", 1},
		{both, map[string]uint32{"10.1.0.9/32": none}, "fd01::8", 1},
		{cells, map[string]uint32{"10.1.0.9/32": none}, "10.1.0.8", 0},
		{cells, map[string]uint32{"fd01::/64": workloadClass}, "10.1.0.8", 0},
		{cells, map[string]uint32{"fd01::/64": workloadClass}, "fd01::8", 1},
		{cells, map[string]uint32{"fd01::/64": workloadClass}, "fd01:0:0:1::8", 0},
		{cells, nil, "10.1.0.8", 0},
		{both, nil, "10.1.0.8", 1},
	} {
		lay(0, c.sources)
		g.flags(bpf.DatapathGenerationFlagGENERATION_ENFORCES | c.flags)
		from, to := netip.MustParseAddr(c.from), "192.0.2.1:443"
		if from.Is6() {
			to = "[2001:db8::1]:443"
		}
		packet := bpftest.Connection(bpftest.TCP, netip.AddrPortFrom(from, 4000), netip.MustParseAddrPort(to))
		if got := g.Run(g.EgressForwarded, packet); got != c.want {
			t.Errorf("flags %b, %v, from %s: verdict %d, want %d", c.flags, c.sources, c.from, got, c.want)
		}
	}
}
