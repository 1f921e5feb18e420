package conntrack

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/dataplane/enforce/enforcetest"
)

func tcp(source, destination string, port uint16) ruleset.Connection {
	return ruleset.Connection{
		Source: netip.MustParseAddr(source), Destination: netip.MustParseAddr(destination), Protocol: ruleset.TCP, Port: port,
	}
}

func fromCIDRs(prefixes ...string) ruleset.Workload {
	var w ruleset.Workload
	for _, p := range prefixes {
		w.CIDRs = append(w.CIDRs, netip.MustParsePrefix(p))
	}
	return w
}

// turned cuts what was allowed before the first policy of all, and says which connections that are.
func (m *machine) turned(t *testing.T, w ruleset.Workload, connections ...ruleset.Connection) (cut []bool) {
	t.Helper()
	for _, c := range connections {
		m.Open(c)
	}
	if _, err := m.Cut(t.Context(), []*ruleset.RuleSet{{}}, rulesFor(w, "192.0.2.0/24")); err != nil {
		t.Fatal(err)
	}
	for _, c := range connections {
		cut = append(cut, m.IsCut(c))
	}
	return cut
}

func expect(t *testing.T, got []bool, want ...bool) {
	t.Helper()
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("connection %d: cut %t, want %t", i, got[i], want[i])
		}
	}
}

func TestProtocolsAndFamilies(t *testing.T) {
	m := newMachine(t, true)
	udp, v6, udp6 := tcp("10.1.2.3", "198.51.100.1", 443), tcp("fd01::3", "2001:db8::1", 443), tcp("fd01::3", "2001:db8::1", 443)
	udp.Protocol, udp6.Protocol = ruleset.UDP, ruleset.UDP
	expect(t, m.turned(t, fromCIDRs("10.1.0.0/16", "fd01::/64"), udp, v6, udp6, tcp("10.1.2.3", "192.0.2.1", 443)), true, true, true, false)
}

func TestWhatIsNoEgress(t *testing.T) {
	m := newMachine(t, true)
	command(t, "ip route add local 198.51.100.128/25 dev lo")
	resolver, server := netip.MustParseAddrPort("198.51.100.53:53"), netip.MustParseAddrPort("198.51.100.7:7443")
	m.SetEndpoints([]netip.AddrPort{resolver}, []netip.AddrPort{server})
	dns, dhcp := tcp("10.1.2.3", "198.51.100.53", 53), tcp("10.1.0.1", "198.51.100.9", 67)
	dns.Protocol, dhcp.Protocol = ruleset.UDP, ruleset.UDP
	forwarded := fromCIDRs("0.0.0.0/0")
	expect(t, m.turned(t, forwarded,
		dns, tcp("10.1.2.3", "198.51.100.53", 53), tcp("10.1.2.3", "198.51.100.53", 54),
		tcp("198.51.100.4", "10.1.0.1", 443), tcp("198.51.100.4", "198.51.100.200", 443),
		tcp("10.1.2.3", "198.51.100.7", 7443), tcp("10.1.0.1", "198.51.100.7", 7443),
	), false, false, true, false, false, true, false)
	if _, err := m.Cut(t.Context(), []*ruleset.RuleSet{{}}, rulesFor(ruleset.Workload{Host: true}, "192.0.2.0/24")); err != nil {
		t.Fatal(err)
	}
	if m.IsCut(tcp("10.1.0.1", "198.51.100.7", 7443)) {
		t.Error("the agent's connection to its policy server is cut")
	}
}

func TestConnectionsByInterface(t *testing.T) {
	m := newMachine(t, true)
	command(t, "ip addr add 10.2.0.1/16 dev other0")
	command(t, "ip route add 10.3.0.0/16 nexthop via 10.1.0.9 nexthop via 10.2.0.9")
	expect(t, m.turned(t, ruleset.Workload{Interface: "in+"},
		tcp("10.1.2.3", "198.51.100.1", 443), // behind in0
		tcp("10.2.2.3", "198.51.100.1", 443), // behind other0
		tcp("10.3.2.3", "198.51.100.1", 443), // behind either
		tcp("10.4.2.3", "198.51.100.1", 443), // who knows
	), true, false, true, true)
}

// A connection that is related to another is judged as that one is.
func TestRelatedConnections(t *testing.T) {
	m := newMachine(t, true)
	control := tcp("10.1.2.3", "198.51.100.1", 21)
	m.Open(control)
	master := nameTuple(netip.MustParseAddrPort("10.1.2.3:40000"), netip.MustParseAddrPort("198.51.100.1:21"), unix.IPPROTO_TCP)
	related := func(c ruleset.Connection) {
		t.Helper()
		if err := m.native.execute(messageNew, unix.NLM_F_CREATE|unix.NLM_F_EXCL, appendAttribute(made(c, tcpEstablished), attrMaster|unix.NLA_F_NESTED, master)); err != nil {
			t.Fatal(err)
		}
	}
	passive, active := tcp("10.1.2.3", "198.51.100.1", 30000), tcp("198.51.100.1", "10.1.2.3", 30001)
	related(passive)
	related(active)
	rules := func(port uint16) *ruleset.RuleSet {
		r := rulesFor(fromCIDRs("10.1.0.0/16"), "198.51.100.0/24")
		r.Policies[0].Rules[0].Ports = []ruleset.Ports{{Protocol: ruleset.TCP, First: port, Last: port}}
		return r
	}
	count, err := m.Cut(t.Context(), []*ruleset.RuleSet{rules(21)}, rules(22))
	if err != nil || count.Cut != 3 {
		t.Errorf("got %+v, %v, want 3 cut", count, err)
	}
	if !m.IsCut(control) || !m.IsCut(passive) {
		t.Error("the connection, or what it opened, is not cut")
	}
	if _, _, exists := m.labels(active); exists {
		t.Error("what the other side opened for it is there")
	}
}

// Of an address whose names are not all known, what may have been allowed by one of them is cut, if the
// change is one to those rules.
func TestForgottenNames(t *testing.T) {
	names := enforcetest.Patterns(3)
	rules := func(established ruleset.Established, domains []domain.Pattern, other string) *ruleset.RuleSet {
		return ruleset.New([]ruleset.Policy{
			{
				Name: "policies/names", Established: established, Workloads: []ruleset.Workload{fromCIDRs("10.1.0.0/16")},
				Rules: []ruleset.Rule{{Domains: domains}},
			},
			{
				Name: "policies/other", Workloads: []ruleset.Workload{fromCIDRs("10.2.0.0/16")},
				Rules: []ruleset.Rule{{CIDRs: []netip.Prefix{netip.MustParsePrefix(other)}}},
			},
		})
	}
	before := rules(ruleset.Cut, names, "192.0.2.0/24")
	for _, c := range []struct {
		fact          string
		whole         bool
		before, after *ruleset.RuleSet
		cut           bool
	}{
		{"all names are known", true, before, rules(ruleset.Cut, names[1:], "192.0.2.0/24"), false},
		{"names were forgotten", false, before, rules(ruleset.Cut, names[1:], "192.0.2.0/24"), true},
		{"the policy keeps", false, rules(ruleset.Keep, names, "192.0.2.0/24"), rules(ruleset.Keep, names[1:], "192.0.2.0/24"), false},
		{"the change is another workload's", false, before, rules(ruleset.Cut, names, "198.51.100.0/25"), false},
	} {
		t.Run(c.fact, func(t *testing.T) {
			m := newMachine(t, true)
			m.whole = c.whole
			connection := tcp("10.1.2.3", "198.51.100.1", 443)
			m.Open(connection)
			if _, err := m.Cut(t.Context(), []*ruleset.RuleSet{c.before}, c.after); err != nil {
				t.Fatal(err)
			}
			if got := m.IsCut(connection); got != c.cut {
				t.Errorf("cut %t, want %t", got, c.cut)
			}
		})
	}
}
