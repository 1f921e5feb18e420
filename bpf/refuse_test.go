package bpf_test

import (
	"net/netip"
	"testing"

	"github.com/miekg/dns"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
)

// newAsker opens a gate behind which the client of an exchange, and the node itself, ask.
func newAsker(t *testing.T, workload bpf.DatapathWorkloadFlag) *gate {
	t.Helper()
	e := newExchange(t)
	g := &gate{Datapath: e.Datapath, t: t}
	g.flags(bpf.DatapathGenerationFlagGENERATION_ENFORCES | bpf.DatapathGenerationFlagGENERATION_SOURCES | bpf.DatapathGenerationFlagGENERATION_REFUSES)
	g.prefix(g.Sources, "10.1.0.0/16", workloadClass)
	g.workload(bpf.DatapathWorkloadKey{Source: workloadClass}, workload)
	g.workload(bpf.DatapathWorkloadKey{Origin: bpf.DatapathOriginORIGIN_LOCAL}, workload)
	return g
}

// ask asks for a name and returns the verdict; what was counted says whether it is remembered.
func (g *gate) ask(name, client string) (verdict uint32, counted map[bpf.DatapathCounter]uint64) {
	g.t.Helper()
	g.ResetCounters()
	query := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA)
	packet := bpftest.Datagram(netip.MustParseAddrPort(client), netip.MustParseAddrPort("10.0.0.53:53"), pack(g.t, query))
	forwarded := g.Run(g.DnsQueryForwarded, packet)
	if local := g.Run(g.DnsQueryLocal, packet); client == asking && local != forwarded {
		g.t.Errorf("%s: dns_query_forwarded gave %d, dns_query_local %d", name, forwarded, local)
	}
	return forwarded, g.Counted()
}

const asking = "10.1.0.7:40000"

func (g *gate) expectAsked(name string) {
	g.t.Helper()
	verdict, counted := g.ask(name, asking)
	if verdict != 0 || counted[bpf.DatapathCounterCOUNTER_QUERY] != 2 || len(counted) != 1 {
		g.t.Errorf("%s: verdict %d, counted %v, want it asked", name, verdict, counted)
	}
}

func (g *gate) expectUnasked(name string) {
	g.t.Helper()
	verdict, counted := g.ask(name, asking)
	if verdict != 1 || counted[bpf.DatapathCounterCOUNTER_QUERY_REFUSED] != 2 || len(counted) != 1 {
		g.t.Errorf("%s: verdict %d, counted %v, want it refused and not remembered", name, verdict, counted)
	}
}

func TestFirstRuleOfTheNameRefuses(t *testing.T) {
	g := newAsker(t, enforced)
	question := func(set uint32) bpf.DatapathComponent {
		return component(bpf.DatapathComponentCOMPONENT_QUESTION, set)
	}
	g.rules(question(apiSet), every(1, 0))
	g.rules(question(belowSet), every(3, bpf.DatapathVerdictFlagVERDICT_DENY))
	g.rules(question(apexSet), every(7, bpf.DatapathVerdictFlagVERDICT_DENY))
	g.expectAsked("api.example.com")
	g.expectUnasked("x.example.com")
	g.expectUnasked("X.Example.COM")
	g.expectUnasked("example.com")
	g.expectAsked("other.test") // no rule matches: the name may be asked
	// A rule without a destination matches every name.
	g.rules(component(bpf.DatapathComponentCOMPONENT_ANY_QUESTION, 0), every(2, 0))
	g.expectAsked("x.example.com")
	g.rules(component(bpf.DatapathComponentCOMPONENT_ANY_QUESTION, 0), every(2, bpf.DatapathVerdictFlagVERDICT_DENY))
	g.expectAsked("api.example.com")
	g.expectUnasked("other.test")
	if verdict, _ := g.ask("x.example.com", "10.2.0.7:40000"); verdict != 0 {
		t.Error("the question of a client that no policy selects was refused")
	}
	// The rules of connections do not count for questions.
	g.rules(component(bpf.DatapathComponentCOMPONENT_ANY, 0), every(0, 0))
	g.expectUnasked("x.example.com")
	g.flags(bpf.DatapathGenerationFlagGENERATION_ENFORCES | bpf.DatapathGenerationFlagGENERATION_SOURCES)
	g.expectAsked("x.example.com")
}

func TestAuditedQuestionIsAsked(t *testing.T) {
	g := newAsker(t, enforced|auditing)
	g.rules(component(bpf.DatapathComponentCOMPONENT_ANY_QUESTION, 0), every(2, bpf.DatapathVerdictFlagVERDICT_DENY|bpf.DatapathVerdictFlagVERDICT_AUDIT))
	verdict, counted := g.ask("x.example.com", asking)
	if verdict != 0 || counted[bpf.DatapathCounterCOUNTER_QUERY] != 2 || counted[bpf.DatapathCounterCOUNTER_QUERY_AUDIT] != 2 {
		t.Errorf("verdict %d, counted %v, want it asked and reported", verdict, counted)
	}
}

// A question to a resolver that is not trusted is a connection like others.
func TestUntrustedResolverIsNotRefused(t *testing.T) {
	g := newAsker(t, enforced)
	g.rules(component(bpf.DatapathComponentCOMPONENT_ANY_QUESTION, 0), every(2, bpf.DatapathVerdictFlagVERDICT_DENY))
	query := pack(t, new(dns.Msg).SetQuestion("x.example.com.", dns.TypeA))
	if verdict := g.Run(g.DnsQueryForwarded, bpftest.Datagram(netip.MustParseAddrPort(asking), netip.MustParseAddrPort("10.0.0.54:53"), query)); verdict != 0 {
		t.Errorf("got verdict %d", verdict)
	}
}

// What cannot be read is not refused: the answer opens nothing.
func TestUnreadableQuestionIsNotRefused(t *testing.T) {
	g := newAsker(t, enforced)
	g.rules(component(bpf.DatapathComponentCOMPONENT_ANY_QUESTION, 0), every(2, bpf.DatapathVerdictFlagVERDICT_DENY))
	query := pack(t, new(dns.Msg).SetQuestion("x.example.com.", dns.TypeA))
	for cut := range len(query) {
		packet := bpftest.Datagram(netip.MustParseAddrPort(asking), netip.MustParseAddrPort("10.0.0.53:53"), query[:cut])
		if verdict := g.Run(g.DnsQueryForwarded, packet); verdict != 0 {
			t.Errorf("cut to %d bytes: got verdict %d", cut, verdict)
		}
	}
}
