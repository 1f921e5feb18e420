package bpf_test

import (
	"net/netip"
	"testing"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
)

// The programs find each of many hosts and all of its rules, few or many, in the generation that judges, and nothing
// of what is not there.
func TestProgramsFindWhatIsLaidOut(t *testing.T) {
	const hosts, class = 700, 21
	d := bpftest.Load(t, 1)
	destination := netip.MustParseAddr("198.51.100.9")
	counts := []int{1, 2, 6, 7, 12, 80}
	client := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 20, byte(i >> 8), byte(i)}) }
	first := func(generation uint32) int { return 1000 * int(generation+1) }
	for generation := range uint32(2) {
		d.Flags(generation, bpf.DatapathGenerationFlagGENERATION_ENFORCES|bpf.DatapathGenerationFlagGENERATION_HOSTS|bpf.DatapathGenerationFlagGENERATION_DESTINATIONS)
		d.Put(d.Destinations, bpf.DatapathPrefixKey{Prefixlen: 32 + 128, Generation: generation, Address: bpftest.Addr(destination)}, uint32(class))
		sources, rules := map[bpf.Source]bpf.DatapathSourceClass{}, map[bpf.VerdictKey][]bpf.VerdictEntry{}
		for i := range hosts {
			sources[bpftest.Source(netip.PrefixFrom(client(i), 32))] = bpf.DatapathSourceClass{Class: uint32(i + 1), Workload: bpf.DatapathWorkload{Id: uint32(i), Flags: enforced}}
			key := bpf.VerdictKey{Workload: uint32(i), Component: component(bpf.DatapathComponentCOMPONENT_CIDR, class)}
			for n := range counts[i%len(counts)] {
				port := uint16(first(generation) + n)
				rules[key] = append(rules[key], rule(uint32(n), bpftest.TCP, port, port, 0))
			}
		}
		d.LayHosts(generation, sources)
		d.LayRules(generation, rules)
	}
	verdict := func(i, port int) uint32 {
		from := netip.AddrPortFrom(client(i), 4000)
		return d.Run(d.EgressForwarded, bpftest.Connection(bpftest.TCP, from, netip.AddrPortFrom(destination, uint16(port))))
	}
	for generation := range uint32(2) {
		d.SetState(generation, generation)
		d.ResetCounters()
		for i := range hosts {
			port := first(generation) + counts[i%len(counts)]
			if verdict(i, first(generation)) != 0 || verdict(i, port-1) != 0 || verdict(i, port) != 1 {
				t.Errorf("generation %d, host %d: its first and last rule do not let through, or another does", generation, i)
			}
		}
		if allowed, denied := d.Counter(allowed), d.Counter(denied); allowed != 2*hosts || denied != hosts {
			t.Errorf("generation %d: %d allowed, %d denied of %d hosts", generation, allowed, denied, hosts)
		}
		d.ResetCounters()
		for i := range hosts {
			if verdict(hosts+i, first(generation)) != 0 {
				t.Errorf("generation %d: host %d, which is of no workload, is denied", generation, hosts+i)
			}
		}
		if counted := d.Counted(); len(counted) > 0 {
			t.Errorf("generation %d: of no workload, counted %v", generation, counted)
		}
	}
}
