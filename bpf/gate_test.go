package bpf_test

import (
	"maps"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
)

const (
	allowed = bpf.DatapathCounterCOUNTER_VERDICT_ALLOW
	denied  = bpf.DatapathCounterCOUNTER_VERDICT_DENY
	audited = bpf.DatapathCounterCOUNTER_VERDICT_AUDIT
)

// A gate is a datapath with one workload of id 1: 10.1.0.0/16 and fd01::/16, enforced.
type gate struct {
	*bpftest.Datapath
	t        testing.TB
	enforces bool
}

const workloadClass = 11

func newGate(t testing.TB, flags bpf.DatapathWorkloadFlag, options ...func(*ebpf.CollectionSpec)) *gate {
	t.Helper()
	g := &gate{Datapath: bpftest.Load(t, 1, options...), t: t, enforces: flags&enforced != 0}
	g.flags(bpf.DatapathGenerationFlagGENERATION_ENFORCES | bpf.DatapathGenerationFlagGENERATION_SOURCES | bpf.DatapathGenerationFlagGENERATION_DESTINATIONS)
	g.prefix(g.Sources, "10.1.0.0/16", workloadClass)
	g.prefix(g.Sources, "fd01::/16", workloadClass)
	g.workload(bpf.DatapathWorkloadKey{Source: workloadClass}, flags)
	g.workload(bpf.DatapathWorkloadKey{Origin: bpf.DatapathOriginORIGIN_LOCAL}, flags)
	return g
}

func (g *gate) flags(flags bpf.DatapathGenerationFlag) {
	g.t.Helper()
	g.Flags(0, flags)
}

func (g *gate) prefix(m any, text string, class uint32) {
	g.t.Helper()
	prefix := netip.MustParsePrefix(text)
	bits := prefix.Bits()
	if prefix.Addr().Is4() {
		bits += 96
	}
	key := bpf.DatapathPrefixKey{Prefixlen: uint32(32 + bits), Address: bpftest.Addr(prefix.Addr())}
	if m == g.Sources {
		g.Put(g.Sources, key, bpf.DatapathSourceClass{Class: class})
		return
	}
	g.Put(g.Destinations, key, class)
}

func (g *gate) workload(key bpf.DatapathWorkloadKey, flags bpf.DatapathWorkloadFlag) {
	g.t.Helper()
	g.Put(g.Workloads, key, bpf.DatapathWorkload{Id: 1, Flags: flags | bpf.DatapathWorkloadFlagWORKLOAD_ANYWHERE})
}

// rules sets what one component may match.
func (g *gate) rules(component bpf.DatapathComponent, entries ...bpf.VerdictEntry) {
	g.t.Helper()
	g.Rules(0, bpf.VerdictKey{Workload: 1, Component: component}, entries...)
}

func component(kind bpf.DatapathComponent, id uint32) bpf.DatapathComponent {
	return kind<<bpf.DatapathComponentCOMPONENT_SHIFT | bpf.DatapathComponent(id)
}

func rule(position uint32, protocol uint8, first, last uint16, flags bpf.DatapathVerdictFlag) bpf.VerdictEntry {
	return bpf.VerdictEntry{Position: position, Protocol: protocol, FirstPort: first, LastPort: last, Flags: flags}
}

func every(position uint32, flags bpf.DatapathVerdictFlag) bpf.VerdictEntry {
	return rule(position, 0, 0, 65535, flags)
}

// judge runs egress_forwarded, checks that verdict and counter agree, and that accept_forwarded matches what
// is of an enforced workload and passes, and gives the counter.
func (g *gate) judge(packet []byte) bpf.DatapathCounter {
	g.t.Helper()
	g.ResetCounters()
	verdict := g.Run(g.EgressForwarded, packet)
	counted := g.Counted()
	accepted := g.Run(g.AcceptForwarded, packet)
	if want := g.enforces && counted[allowed]+counted[audited] > 0; (accepted == 1) != want {
		g.t.Errorf("verdict %d, counted %v: accept gives %d", verdict, counted, accepted)
	}
	if again := g.Counted(); !maps.Equal(counted, again) {
		g.t.Errorf("accept counts: before %v, after %v", counted, again)
	}
	for _, counter := range []bpf.DatapathCounter{allowed, denied, audited} {
		if counted[counter] == 0 {
			continue
		}
		if counted[counter] != 1 || (verdict == 1) != (counter == denied) {
			g.t.Errorf("verdict %d, counted %v", verdict, counted)
		}
		return counter
	}
	if verdict != 0 || len(counted) != 0 {
		g.t.Errorf("verdict %d, counted %v", verdict, counted)
	}
	return bpf.DatapathCounterCOUNTER_MAX
}

const untouched = bpf.DatapathCounterCOUNTER_MAX

var source = netip.MustParseAddrPort("10.1.0.7:40000")

func connect(protocol uint8, destination string) []byte {
	to := netip.MustParseAddrPort(destination)
	from := source
	if to.Addr().Is6() {
		from = netip.MustParseAddrPort("[fd01::7]:40000")
	}
	return bpftest.Connection(protocol, from, to)
}

func (g *gate) want(fact string, packet []byte, want bpf.DatapathCounter) {
	g.t.Helper()
	if got := g.judge(packet); got != want {
		g.t.Errorf("%s: got %d, want %d", fact, got, want)
	}
}
