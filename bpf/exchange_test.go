package bpf_test

import (
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/miekg/dns"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
)

// The match sets of the tests' patterns.
const (
	apiSet   = 101 // api.example.com
	belowSet = 102 // *.example.com
	apexSet  = 103 // example.com
	cdnSet   = 104 // *.cdn.test
)

// An exchange is a client that asks a trusted resolver, on a datapath with a few patterns.
type exchange struct {
	*bpftest.Datapath
	t        testing.TB
	client   netip.AddrPort
	resolver netip.AddrPort
}

func newExchange(t testing.TB, options ...func(*ebpf.CollectionSpec)) *exchange {
	t.Helper()
	e := &exchange{
		Datapath: bpftest.Load(t, 1024, options...),
		t:        t,
		client:   netip.MustParseAddrPort("10.1.0.7:40000"),
		resolver: netip.MustParseAddrPort("10.0.0.53:53"),
	}
	e.trust(e.resolver)
	e.Pattern(0, "api.example.com", apiSet, 0)
	e.Pattern(0, "example.com", apexSet, belowSet)
	e.Pattern(0, "cdn.test", 0, cdnSet)
	return e
}

// reset forgets everything but the patterns and the resolvers, and reports to another test from now on.
func (e *exchange) reset(t testing.TB) {
	t.Helper()
	e.t = t
	e.Reset(t)
}

func (e *exchange) trust(resolver netip.AddrPort) { trust(e.Datapath, resolver) }

func trust(d *bpftest.Datapath, resolvers ...netip.AddrPort) {
	for _, resolver := range resolvers {
		d.Put(d.Endpoints, endpoint(resolver, bpftest.UDP), bpf.DatapathEndpointFlagENDPOINT_RESOLVER)
	}
}

func endpoint(address netip.AddrPort, protocol uint16) bpf.DatapathEndpointKey {
	return bpf.DatapathEndpointKey{
		Address:  bpftest.Addr(address.Addr()),
		Port:     network(address.Port()),
		Protocol: protocol,
	}
}

// network gives a number whose bytes in memory are in network order.
func network(n uint16) uint16 { return n<<8 | n>>8 }

// ask sends a query for a name.
func (e *exchange) ask(name string, questionType uint16) *dns.Msg {
	e.t.Helper()
	query := new(dns.Msg).SetQuestion(dns.Fqdn(name), questionType)
	query.Id = 4711
	e.send(pack(e.t, query))
	return query
}

func (e *exchange) send(query []byte) {
	e.t.Helper()
	if verdict := e.Run(e.DnsQueryForwarded, bpftest.Datagram(e.client, e.resolver, query)); verdict != 0 {
		e.t.Fatalf("dns_query_forwarded gave %d", verdict)
	}
}

// reply builds the answer to a query with records as in a zone file.
func reply(t testing.TB, query *dns.Msg, records ...string) *dns.Msg {
	t.Helper()
	answer := new(dns.Msg).SetReply(query)
	answer.Compress = true
	for _, text := range records {
		record, err := dns.NewRR(text)
		if err != nil {
			t.Fatalf("parse record %q: %v", text, err)
		}
		answer.Answer = append(answer.Answer, record)
	}
	return answer
}

func pack(t testing.TB, message *dns.Msg) []byte {
	t.Helper()
	wire, err := message.Pack()
	if err != nil {
		t.Fatalf("pack %v: %v", message, err)
	}
	return wire
}

// deliver runs dns_response on a message and gives what was counted.
func (e *exchange) deliver(message []byte) map[bpf.DatapathCounter]uint64 {
	e.t.Helper()
	e.ResetCounters()
	if verdict := e.Run(e.DnsResponse, bpftest.Datagram(e.resolver, e.client, message)); verdict != 0 {
		e.t.Fatalf("dns_response gave %d", verdict)
	}
	return e.Counted()
}

// resolve asks for a name's A records and delivers the answer.
func (e *exchange) resolve(name string, records ...string) map[bpf.DatapathCounter]uint64 {
	e.t.Helper()
	return e.deliver(pack(e.t, reply(e.t, e.ask(name, dns.TypeA), records...)))
}

// sets gives the match sets of an address, without their expiries.
func (e *exchange) sets(address string) map[uint32]bool {
	e.t.Helper()
	sets := make(map[uint32]bool)
	for set := range e.Learned(netip.MustParseAddr(address)) {
		sets[set] = true
	}
	return sets
}

// learnedNothing fails the test if any address is known.
func (e *exchange) learnedNothing() {
	e.t.Helper()
	for _, cell := range e.Cells() {
		e.t.Errorf("address %v is known", netip.AddrFrom16(cell.Address.Bytes))
	}
	if answers := e.Answers(); len(answers) != 0 {
		e.t.Errorf("events %+v", answers)
	}
}
