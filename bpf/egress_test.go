package bpf_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
)

const (
	enforced = bpf.DatapathWorkloadFlagWORKLOAD_ENFORCED
	auditing = bpf.DatapathWorkloadFlagWORKLOAD_AUDITED
	deny     = bpf.DatapathVerdictFlagVERDICT_DENY
	audit    = bpf.DatapathVerdictFlagVERDICT_AUDIT
)

func TestWhoIsJudged(t *testing.T) {
	g := newGate(t, enforced)
	g.want("a selected source", connect(bpftest.TCP, "192.0.2.1:443"), denied)
	g.want("a selected source, IPv6", connect(bpftest.TCP, "[2001:db8::1]:443"), denied)
	other := bpftest.Connection(bpftest.TCP, netip.MustParseAddrPort("10.2.0.7:4000"), netip.MustParseAddrPort("192.0.2.1:443"))
	g.want("another source", other, untouched)
	g.flags(bpf.DatapathGenerationFlagGENERATION_ENFORCES)
	g.want("no policy selects by source", connect(bpftest.TCP, "192.0.2.1:443"), untouched)
	if verdict := g.Run(g.EgressLocal, other); verdict != 1 {
		t.Errorf("the host's own connection: verdict %d", verdict)
	}
	if accepted := g.Run(g.AcceptLocal, other); accepted != 0 {
		t.Errorf("the host's own connection, denied: accept gives %d", accepted)
	}
	g.rules(component(bpf.DatapathComponentCOMPONENT_ANY, 0), every(1, 0))
	if accepted := g.Run(g.AcceptLocal, other); accepted != 1 {
		t.Errorf("the host's own connection, allowed: accept gives %d", accepted)
	}
	g.flags(0)
	if verdict := g.Run(g.EgressLocal, other); verdict != 0 {
		t.Errorf("no rule set: verdict %d", verdict)
	}
}

func TestInterfaces(t *testing.T) {
	g := newGate(t, enforced)
	g.flags(bpf.DatapathGenerationFlagGENERATION_ENFORCES | bpf.DatapathGenerationFlagGENERATION_SOURCES | bpf.DatapathGenerationFlagGENERATION_INTERFACES)
	g.workload(bpf.DatapathWorkloadKey{Interface: 5}, enforced)
	g.workload(bpf.DatapathWorkloadKey{Source: 12, Interface: 6}, enforced)
	g.prefix(g.Sources, "10.2.0.0/16", 12)
	const loopback = 1 // the only interface that every namespace has
	packet := func(from string) []byte {
		return bpftest.Connection(bpftest.TCP, netip.MustParseAddrPort(from+":4000"), netip.MustParseAddrPort("192.0.2.1:443"))
	}
	judge := func(fact, from string, class int, want uint32) {
		t.Helper()
		if class < 0 {
			g.Forget(g.Interfaces)
		} else {
			g.Put(g.Interfaces, uint32(loopback), bpf.DatapathInterfaceClasses{Class: [2]uint32{uint32(class), 99}})
		}
		if got := g.RunFrom(g.EgressForwarded, loopback, packet(from)); got != want {
			t.Errorf("%s: verdict %d, want %d", fact, got, want)
		}
	}
	judge("a selected interface", "10.9.0.1", 5, 1)
	judge("an interface of no workload", "10.9.0.1", 0, 0)
	judge("an interface with a source", "10.2.0.1", 6, 1)
	judge("that source from another interface", "10.2.0.1", 0, 0)
	judge("that interface with another source", "10.9.0.1", 6, 0)
	judge("an unknown interface", "10.9.0.1", -1, 1)
	want := map[bpf.DatapathCounter]uint64{denied: 3, bpf.DatapathCounterCOUNTER_UNKNOWN_INTERFACE: 1, told: 3}
	if diff := cmp.Diff(want, g.Counted()); diff != "" {
		t.Errorf("counters (-want +got):\n%s", diff)
	}
}

func TestComponents(t *testing.T) {
	g := newGate(t, enforced)
	g.prefix(g.Destinations, "198.51.100.0/24", 21)
	g.prefix(g.Destinations, "2001:db8::/32", 21)
	g.rules(component(bpf.DatapathComponentCOMPONENT_CIDR, 21), every(10, 0))
	g.rules(component(bpf.DatapathComponentCOMPONENT_MATCH_SET, 31), every(11, 0))
	g.rules(component(bpf.DatapathComponentCOMPONENT_ANY, 0), rule(12, bpftest.TCP, 22, 22, 0))
	g.want("no rule", connect(bpftest.TCP, "192.0.2.1:443"), denied)
	g.want("a rule without destination", connect(bpftest.TCP, "192.0.2.1:22"), allowed)
	g.want("a CIDR", connect(bpftest.TCP, "198.51.100.9:443"), allowed)
	g.want("a CIDR, IPv6", connect(bpftest.UDP, "[2001:db8::9]:443"), allowed)
	g.Remap(remapEntry(known, 30, after(t, time.Hour)))
	g.want("a name of another match set", connect(bpftest.TCP, "192.0.2.1:443"), denied)
	g.Remap(remapEntry(known, 31, after(t, -time.Second)))
	g.want("an expired name", connect(bpftest.TCP, "192.0.2.1:443"), denied)
	g.Remap(remapEntry(known, 31, after(t, time.Hour)))
	g.want("a name", connect(bpftest.TCP, "192.0.2.1:443"), allowed)
}

func TestEveryPageOfAMappingCounts(t *testing.T) {
	g := newGate(t, enforced)
	g.rules(component(bpf.DatapathComponentCOMPONENT_MATCH_SET, 64), every(1, 0))
	for set := range uint32(64) {
		g.want("before the last match set", connect(bpftest.TCP, "192.0.2.1:443"), denied)
		g.Remap(remapEntry(known, set+1, after(t, time.Hour)))
	}
	g.want("the last slot of the last page", connect(bpftest.TCP, "192.0.2.1:443"), allowed)
}

func TestTheLowestPositionDecides(t *testing.T) {
	g := newGate(t, enforced)
	g.prefix(g.Destinations, "192.0.2.0/24", 21)
	g.Remap(remapEntry(known, 31, after(t, time.Hour)), remapEntry(known, 32, after(t, time.Hour)))
	cidr, first, second := component(bpf.DatapathComponentCOMPONENT_CIDR, 21), component(bpf.DatapathComponentCOMPONENT_MATCH_SET, 31), component(bpf.DatapathComponentCOMPONENT_MATCH_SET, 32)
	packet := connect(bpftest.TCP, "192.0.2.1:443")
	g.rules(cidr, every(10, 0))
	g.want("one", packet, allowed)
	g.rules(first, every(9, deny))
	g.want("a lower one denies", packet, denied)
	g.rules(second, every(8, 0))
	g.want("a lower one allows", packet, allowed)
	g.rules(component(bpf.DatapathComponentCOMPONENT_ANY, 0), every(7, deny))
	g.want("the lowest denies", packet, denied)
	g.rules(component(bpf.DatapathComponentCOMPONENT_ANY, 0), every(70, deny))
	g.want("a higher one is too late", packet, allowed)
}

func TestPortsAndProtocols(t *testing.T) {
	g := newGate(t, enforced)
	g.rules(component(bpf.DatapathComponentCOMPONENT_ANY, 0),
		rule(1, bpftest.TCP, 443, 443, 0), rule(2, bpftest.UDP, 8000, 8999, 0), rule(3, bpftest.SCTP, 0, 65535, 0), rule(4, bpftest.ICMP, 0, 65535, 0))
	tests := []struct {
		fact   string
		packet []byte
		want   bpf.DatapathCounter
	}{
		{"TCP, the port", connect(bpftest.TCP, "192.0.2.1:443"), allowed},
		{"TCP, another", connect(bpftest.TCP, "192.0.2.1:444"), denied},
		{"UDP, TCP's port", connect(bpftest.UDP, "192.0.2.1:443"), denied},
		{"UDP, before the range", connect(bpftest.UDP, "192.0.2.1:7999"), denied},
		{"UDP, first of the range", connect(bpftest.UDP, "192.0.2.1:8000"), allowed},
		{"UDP, last of the range", connect(bpftest.UDP, "192.0.2.1:8999"), allowed},
		{"UDP, behind the range", connect(bpftest.UDP, "192.0.2.1:9000"), denied},
		{"SCTP, any port", connect(bpftest.SCTP, "192.0.2.1:65535"), allowed},
		{"ICMP", bpftest.Ping(source.Addr(), known, 8), allowed},
		{"ICMPv6", bpftest.Ping(netip.MustParseAddr("fd01::7"), netip.MustParseAddr("2001:db8::1"), 128), allowed},
		{"GRE", bpftest.IP(source.Addr(), known, 47, make([]byte, 8)), denied},
	}
	for _, test := range tests {
		g.want(test.fact, test.packet, test.want)
	}
	g.rules(component(bpf.DatapathComponentCOMPONENT_ANY, 0), every(1, 0))
	g.want("GRE under a rule for everything", bpftest.IP(source.Addr(), known, 47, make([]byte, 8)), allowed)
}

func TestManyRules(t *testing.T) {
	g := newGate(t, enforced)
	var entries []bpf.VerdictEntry
	for i := range uint16(80) {
		entries = append(entries, rule(uint32(i), bpftest.TCP, 1000+i, 1000+i, 0))
	}
	g.rules(component(bpf.DatapathComponentCOMPONENT_ANY, 0), entries...)
	for _, i := range []int{0, 5, 6, 79} {
		port := netip.AddrPortFrom(known, 1000+uint16(i))
		g.want(port.String(), bpftest.Connection(bpftest.TCP, source, port), allowed)
	}
	g.want("behind the last", connect(bpftest.TCP, "192.0.2.1:1080"), denied)
}

func TestAudit(t *testing.T) {
	packet := connect(bpftest.TCP, "192.0.2.1:443")
	anything := component(bpf.DatapathComponentCOMPONENT_ANY, 0)
	tests := []struct {
		fact  string
		flags bpf.DatapathWorkloadFlag
		rules []bpf.VerdictEntry
		want  bpf.DatapathCounter
	}{
		{"audit alone, no rule", auditing, nil, audited},
		{"audit alone, allowed", auditing, []bpf.VerdictEntry{every(1, audit)}, allowed},
		{"audit alone, denied", auditing, []bpf.VerdictEntry{every(1, audit|deny), every(2, audit)}, audited},
		{"an audit rule allows nothing beside enforced ones", enforced | auditing, []bpf.VerdictEntry{every(1, audit)}, denied},
		{"an audit rule denies nothing beside enforced ones", enforced | auditing, []bpf.VerdictEntry{every(1, audit|deny), every(2, 0)}, audited},
		{"both allow", enforced | auditing, []bpf.VerdictEntry{every(1, 0), every(2, audit)}, allowed},
		{"an enforced rule is none of audit", enforced | auditing, []bpf.VerdictEntry{every(1, 0)}, audited},
		{"both deny", enforced | auditing, []bpf.VerdictEntry{every(1, deny), every(2, audit|deny)}, denied},
	}
	g := newGate(t, enforced)
	for _, test := range tests {
		g.workload(bpf.DatapathWorkloadKey{Source: workloadClass}, test.flags)
		g.enforces = test.flags&enforced != 0
		g.rules(anything, test.rules...)
		g.want(test.fact, packet, test.want)
	}
}

func TestAlwaysAllowed(t *testing.T) {
	g := newGate(t, enforced)
	six, group := netip.MustParseAddr("fd01::7"), netip.MustParseAddr("ff02::1")
	for _, messageType := range []uint8{130, 131, 132, 133, 134, 135, 136, 137, 143} {
		g.want("ND or MLD", bpftest.Ping(six, group, messageType), allowed)
		g.want("ND or MLD to somebody far away", bpftest.Ping(six, netip.MustParseAddr("2001:db8::1"), messageType), denied)
		if verdict := g.Run(g.EgressLocal, bpftest.Ping(six, netip.MustParseAddr("2001:db8::1"), messageType)); verdict != 0 {
			t.Errorf("type %d, from the node: verdict %d", messageType, verdict)
		}
	}
	for _, neighbour := range []string{"fd01::9", "fe80::9"} {
		g.want("ND to a neighbour", bpftest.Ping(six, netip.MustParseAddr(neighbour), 135), allowed)
		g.want("MLD to a neighbour", bpftest.Ping(six, netip.MustParseAddr(neighbour), 143), denied)
	}
	g.want("ND out of the /64", bpftest.Ping(six, netip.MustParseAddr("fd01:0:0:1::7"), 135), denied)
	for _, messageType := range []uint8{128, 129, 138, 142, 144} {
		g.want("other ICMPv6", bpftest.Ping(six, group, messageType), denied)
	}
	udp := func(from, to string) []byte {
		return bpftest.Connection(bpftest.UDP, netip.MustParseAddrPort(from), netip.MustParseAddrPort(to))
	}
	g.want("DHCP", udp("10.1.0.7:68", "255.255.255.255:67"), allowed)
	g.want("DHCP's server port alone", udp("10.1.0.7:1068", "255.255.255.255:67"), denied)
	g.want("DHCPv6", udp("[fd01::7]:546", "[ff02::1:2]:547"), allowed)
	for from, to := range map[string]string{"10.1.0.7:68": "10.0.0.1:67", "[fd01::7]:546": "[2001:db8::1]:547"} {
		g.want("DHCP to one host", udp(from, to), denied)
		if verdict := g.Run(g.EgressLocal, udp(from, to)); verdict != 0 {
			t.Errorf("DHCP of the node itself to %s: verdict %d", to, verdict)
		}
	}
	g.want("DHCPv6 on IPv4", udp("10.1.0.7:546", "10.0.0.1:547"), denied)

	resolver, server := netip.MustParseAddrPort("10.0.0.53:53"), netip.MustParseAddrPort("10.0.0.9:7443")
	g.want("a resolver that is not trusted", connect(bpftest.UDP, resolver.String()), denied)
	g.Put(g.Endpoints, endpoint(resolver, bpftest.UDP), bpf.DatapathEndpointFlagENDPOINT_RESOLVER)
	g.Put(g.Endpoints, endpoint(resolver, bpftest.TCP), bpf.DatapathEndpointFlagENDPOINT_RESOLVER)
	g.Put(g.Endpoints, endpoint(server, bpftest.TCP), bpf.DatapathEndpointFlagENDPOINT_SERVER)
	g.want("a trusted resolver, UDP", connect(bpftest.UDP, resolver.String()), allowed)
	g.want("a trusted resolver, TCP", connect(bpftest.TCP, resolver.String()), allowed)
	g.want("another port of it", connect(bpftest.UDP, "10.0.0.53:54"), denied)
	g.want("the policy server, from a workload", connect(bpftest.TCP, server.String()), denied)
	if verdict := g.Run(g.EgressLocal, connect(bpftest.TCP, server.String())); verdict != 0 {
		t.Errorf("the policy server, from the node: verdict %d", verdict)
	}
}

func TestUnreadablePackets(t *testing.T) {
	g := newGate(t, enforced)
	whole := connect(bpftest.TCP, "192.0.2.1:443")
	fragment := slices.Clone(whole)
	fragment[14+7] = 9 // offset
	six := func(protocol uint8, transport []byte) []byte {
		return bpftest.IP(netip.MustParseAddr("fd01::7"), netip.MustParseAddr("2001:db8::1"), protocol, transport)
	}
	options := func(count int) []byte {
		headers := slices.Repeat([]byte{60, 0, 1, 4, 0, 0, 0, 0}, count)
		headers[len(headers)-8] = bpftest.TCP
		return append(headers, bpftest.Ports(4000, 443)...)
	}
	for fact, packet := range map[string][]byte{
		"without ports":              bpftest.IP(source.Addr(), known, bpftest.TCP, []byte{1, 2, 3}),
		"a later fragment":           fragment,
		"a later fragment, IPv6":     six(44, append([]byte{bpftest.TCP, 0, 0, 8, 0, 0, 0, 1}, bpftest.Ports(1, 443)...)),
		"a cut extension header":     six(60, []byte{bpftest.TCP}),
		"too many extension headers": six(60, options(8)),
	} {
		if got := g.judge(packet); got != denied || g.Counter(bpf.DatapathCounterCOUNTER_VERDICT_MALFORMED) != 1 {
			t.Errorf("%s: counted %v", fact, g.Counted())
		}
	}
	g.rules(component(bpf.DatapathComponentCOMPONENT_ANY, 0), rule(1, bpftest.TCP, 443, 443, 0))
	for fact, packet := range map[string][]byte{
		"one extension header":     six(60, options(1)),
		"seven extension headers":  six(60, options(7)),
		"a first fragment, IPv6":   six(44, append([]byte{bpftest.TCP, 0, 0, 1, 0, 0, 0, 1}, bpftest.Ports(1, 443)...)),
		"an authentication header": six(51, append([]byte{bpftest.TCP, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, bpftest.Ports(1, 443)...)),
		"IPv4 with options":        optioned(whole),
	} {
		g.want(fact, packet, allowed)
	}
	g.workload(bpf.DatapathWorkloadKey{Source: workloadClass}, auditing)
	g.enforces = false
	g.want("unreadable under audit", fragment, audited)
}

// optioned gives an IPv4 packet one word of options.
func optioned(packet []byte) []byte {
	packet = slices.Insert(slices.Clone(packet), 14+20, 1, 1, 1, 0)
	packet[14]++
	return packet
}

func TestTheActiveGenerationJudges(t *testing.T) {
	g := newGate(t, enforced)
	packet := connect(bpftest.TCP, "192.0.2.1:443")
	g.SetState(1, 1)
	g.want("nothing is in force", packet, untouched)
	g.SetState(0, 1)
	g.want("the other one only learns", packet, denied)
}
