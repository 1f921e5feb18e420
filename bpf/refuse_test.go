package bpf_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
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
	if verdict != 1 || counted[bpf.DatapathCounterCOUNTER_QUERY_REFUSED] != 2 || counted[told] != 2 || len(counted) != 2 {
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

// What asks in a way that cannot be read is asked, unless a rule refuses every name.
func TestQuestionsThatCannotBeRead(t *testing.T) {
	resolver := netip.MustParseAddrPort("10.0.0.53:53")
	asked, two := query(t, 1, "evil.example"), query(t, 1, "api.example.com")
	two.Question = append(two.Question, two.Question[0])
	whole := bpftest.Datagram(netip.MustParseAddrPort(asking), resolver, pack(t, asked))
	short := slices.Clone(whole)
	short[14+20+4], short[14+20+5] = 0, 0 // Linux takes a length of 0 for all there is, in IPv6
	unfollowed := bpftest.Segment(netip.MustParseAddrPort(asking), resolver, 1, bpftest.ACK, framed(pack(t, asked)))
	g := newAsker(t, enforced|auditing)
	g.Put(g.Endpoints, endpoint(resolver, bpftest.TCP), bpf.DatapathEndpointFlagENDPOINT_RESOLVER)
	for _, test := range []struct {
		fact    string
		rules   []bpf.VerdictEntry
		verdict uint32
		flow    bpf.DatapathFlowFlag
	}{
		{"no rule for every name", nil, 0, 0},
		{"a rule that lets every name be asked", []bpf.VerdictEntry{every(1, 0), every(2, deny)}, 0, 0},
		{"a rule that refuses every name", []bpf.VerdictEntry{every(2, deny)}, 1, bpf.DatapathFlowFlagFLOW_DENIED | bpf.DatapathFlowFlagFLOW_ENFORCED_RULE},
		{"such a rule under AUDIT", []bpf.VerdictEntry{every(2, deny|audit)}, 0, bpf.DatapathFlowFlagFLOW_AUDITED | bpf.DatapathFlowFlagFLOW_AUDITED_RULE},
	} {
		// Of a name, it matters to no one of these.
		g.rules(component(bpf.DatapathComponentCOMPONENT_QUESTION, apiSet), every(1, 0))
		g.rules(component(bpf.DatapathComponentCOMPONENT_ANY_QUESTION, 0), test.rules...)
		for kind, packet := range map[string][]byte{
			"two questions":                 bpftest.Datagram(netip.MustParseAddrPort(asking), resolver, pack(t, two)),
			"a length that is not true":     short,
			"a name that is cut short":      bpftest.Datagram(netip.MustParseAddrPort(asking), resolver, pack(t, asked)[:20]),
			"a stream that is not followed": unfollowed,
		} {
			verdict := g.RunFrom(g.DnsQueryForwarded, 1, packet)
			flows := g.Flows()
			if verdict != test.verdict || len(flows) != min(int(test.flow), 1) {
				t.Errorf("%s, %s: verdict %d, told %+v; want %d", test.fact, kind, verdict, flows, test.verdict)
				continue
			}
			if len(flows) == 1 && (flows[0].Flags != test.flow || flows[0].Reason != bpf.DatapathFlowReasonFLOW_UNREADABLE || flows[0].Question != "") {
				t.Errorf("%s, %s: told %+v", test.fact, kind, flows[0])
			}
		}
	}
}

// A question that is refused, or would be, is told with the name in canonical form, the resolver and the
// rules.
func TestJudgedQuestionsAreTold(t *testing.T) {
	const resolver = "10.0.0.53:53"
	g := newAsker(t, enforced|auditing)
	g.Put(g.RuleSets, uint32(0), uint64(0xfeed))
	g.rules(component(bpf.DatapathComponentCOMPONENT_ANY_QUESTION, 0), every(2, bpf.DatapathVerdictFlagVERDICT_DENY), every(5, bpf.DatapathVerdictFlagVERDICT_DENY|bpf.DatapathVerdictFlagVERDICT_AUDIT))
	ask := func(program *ebpf.Program, name string) bpftest.Flow {
		t.Helper()
		query := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA)
		g.RunFrom(program, 1, bpftest.Datagram(netip.MustParseAddrPort(asking), netip.MustParseAddrPort(resolver), pack(t, query)))
		flows := g.Flows()
		if len(flows) != 1 {
			t.Fatalf("%s: %d events, want 1", name, len(flows))
		}
		flows[0].SeenAtNs = 0
		return flows[0]
	}
	want := flowOf(bpftest.UDP, asking, resolver, bpf.DatapathFlowFlagFLOW_DENIED|bpf.DatapathFlowFlagFLOW_ENFORCED_RULE|bpf.DatapathFlowFlagFLOW_AUDITED|bpf.DatapathFlowFlagFLOW_AUDITED_RULE)
	want.Enforced, want.Audited = 2, 5
	long := strings.Repeat(strings.Repeat("x", 62)+".", 4)[:252] + "y"
	for asked, name := range map[string]string{"Evil.Example": "evil.example", "a": "a", long: long} {
		want.NameBytes = uint16(len(name) + 2)
		if diff := cmp.Diff(bpftest.Flow{DatapathFlowEvent: want, Question: name}, ask(g.DnsQueryForwarded, asked)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", asked, diff)
		}
	}
	g.workload(bpf.DatapathWorkloadKey{Origin: bpf.DatapathOriginORIGIN_LOCAL}, auditing)
	if got := ask(g.DnsQueryLocal, "evil.example"); got.Flags != bpf.DatapathFlowFlagFLOW_AUDITED|bpf.DatapathFlowFlagFLOW_ENFORCED_RULE|bpf.DatapathFlowFlagFLOW_AUDITED_RULE|bpf.DatapathFlowFlagFLOW_LOCAL|bpf.DatapathFlowFlagFLOW_UID {
		t.Errorf("audited, of the node itself: flags %#x", got.Flags)
	}
	g.rules(component(bpf.DatapathComponentCOMPONENT_ANY_QUESTION, 0), every(2, 0))
	g.ask("evil.example", asking)
	if flows := g.Flows(); len(flows) != 0 {
		t.Errorf("asked: %+v, want no event", flows)
	}
}

// Questions share the rate of denied connections: what is more is counted.
func TestQuestionEventsAreLimited(t *testing.T) {
	onOneCPU(t)
	g := newAsker(t, enforced)
	g.Put(g.FlowLimits, uint32(0), bpf.DatapathFlowLimit{IntervalNs: uint64(time.Hour), BurstNs: uint64(10 * time.Hour)})
	g.rules(component(bpf.DatapathComponentCOMPONENT_ANY_QUESTION, 0), every(2, bpf.DatapathVerdictFlagVERDICT_DENY))
	query := pack(t, new(dns.Msg).SetQuestion("evil.example.", dns.TypeA))
	packet := bpftest.Datagram(netip.MustParseAddrPort(asking), netip.MustParseAddrPort("10.0.0.53:53"), query)
	for range 100 {
		g.Run(g.DnsQueryForwarded, packet)
	}
	if got := g.Counted(); got[told] != 10 || got[suppressed] != 90 || got[bpf.DatapathCounterCOUNTER_QUERY_REFUSED] != 100 {
		t.Errorf("counted %v, want 10 told of 100", got)
	}
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

// What is cut short anywhere is refused by a rule that refuses every name, and by no other.
func TestQuestionCutShort(t *testing.T) {
	g := newAsker(t, enforced)
	query := pack(t, new(dns.Msg).SetQuestion("x.example.com.", dns.TypeA))
	for component, want := range map[bpf.DatapathComponent]uint32{
		component(bpf.DatapathComponentCOMPONENT_QUESTION, belowSet): 0,
		component(bpf.DatapathComponentCOMPONENT_ANY_QUESTION, 0):    1,
	} {
		g.rules(component, every(2, deny))
		for cut := range len(query) {
			packet := bpftest.Datagram(netip.MustParseAddrPort(asking), netip.MustParseAddrPort("10.0.0.53:53"), query[:cut])
			if verdict := g.Run(g.DnsQueryForwarded, packet); verdict != want {
				t.Errorf("cut to %d bytes: got verdict %d, want %d", cut, verdict, want)
			}
		}
		g.rules(component)
	}
}
