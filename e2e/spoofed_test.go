package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/nameward/nameward/e2e/lab"
)

// A stage is a client that asks a trusted resolver of which the test writes the answers, and a host on no
// path between them that claims to be the resolver.
type stage struct {
	*fleet
	resolver *lab.ScriptedResolver
	asker    *lab.Asker
	offPath  *lab.Namespace
	fresh    byte
}

var scriptedResolvers = []netip.Addr{netip.MustParseAddr("10.91.2.9"), netip.MustParseAddr("fd91:2::9")}

// newStages starts a fleet that lets the client reach api.example, with a stage in each family.
func newStages(t *testing.T, agentFlags ...string) (*fleet, []*stage) {
	t.Helper()
	for _, address := range scriptedResolvers {
		agentFlags = append(agentFlags, "--trusted-resolver", address.String())
	}
	f := newFleet(t, agentFlags...)
	policy := clientPolicy("api.example")
	f.put(policy)
	offPath, err := f.AddOffPathHost(t.Context())
	f.must(err)
	var stages []*stage
	for i, client := range []netip.Addr{lab.ClientV4, lab.ClientV6} {
		s := &stage{fleet: f, offPath: offPath}
		s.resolver, err = f.AddScriptedResolver(t.Context(), scriptedResolvers[i])
		f.must(err)
		s.asker, err = f.NewAsker(f.Client, client)
		f.must(err)
		stages = append(stages, s)
	}
	return f, stages
}

// next picks an address that no answer said before.
func (s *stage) next() netip.Addr {
	s.fresh++
	if s.asker.Address.Addr().Is4() {
		return netip.AddrFrom4([4]byte{198, 18, 250, s.fresh})
	}
	six := lab.ServicesV6.Addr().As16()
	six[7], six[15] = 250, s.fresh
	return netip.AddrFrom16(six)
}

// ask has the client ask for the addresses of api.example, and the resolver hear it.
func (s *stage) ask(edit ...func(*dns.Msg)) *dns.Msg {
	s.t.Helper()
	kind := dns.TypeA
	if s.asker.Address.Addr().Is6() {
		kind = dns.TypeAAAA
	}
	query := new(dns.Msg).SetQuestion("api.example.", kind)
	for _, change := range edit {
		change(query)
	}
	wire, err := query.Pack()
	s.must(err)
	s.must(s.asker.Ask(s.resolver.Address, wire))
	heard, client, err := s.resolver.Hear()
	s.must(err)
	if !bytes.Equal(heard, wire) || client != s.asker.Address {
		s.t.Fatalf("the resolver heard %x of %v, want %x of %v", heard, client, wire, s.asker.Address)
	}
	return query
}

// answer says that the name asked has an address.
func answer(query *dns.Msg, address netip.Addr) *dns.Msg {
	message := new(dns.Msg).SetReply(query)
	header := dns.RR_Header{Name: query.Question[0].Name, Class: dns.ClassINET, Ttl: 60}
	if address.Is4() {
		header.Rrtype = dns.TypeA
		message.Answer = append(message.Answer, &dns.A{Hdr: header, A: address.AsSlice()})
	} else {
		header.Rrtype = dns.TypeAAAA
		message.Answer = append(message.Answer, &dns.AAAA{Hdr: header, AAAA: address.AsSlice()})
	}
	return message
}

func (s *stage) pack(message *dns.Msg) []byte {
	s.t.Helper()
	wire, err := message.Pack()
	s.must(err)
	return wire
}

// results is how many responses the agent's metrics tell of, by result.
func (s *stage) results() map[string]uint64 {
	s.t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return s.Node.Dial("tcp", "127.0.0.1:7481", time.Second)
	}}}
	response, err := client.Get("http://127.0.0.1:7481/metrics")
	s.must(err)
	defer response.Body.Close() //nolint:errcheck // read
	results := map[string]uint64{}
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		var result string
		var count uint64
		if _, err := fmt.Sscanf(lines.Text(), "nameward_agent_dns_responses_total{result=%q} %d", &result, &count); err == nil {
			results[result] = count
		}
	}
	if len(results) == 0 {
		s.t.Fatal("no metrics of DNS responses")
	}
	return results
}

// expectNotLearned fails the test unless a message reaches the client as it is, opens nothing, and is
// counted under its reason alone.
func (s *stage) expectNotLearned(t *testing.T, at *lab.Asker, message []byte, address netip.Addr, reason string, send func() error) {
	t.Helper()
	before := s.results()
	s.must(send())
	heard, err := at.Hear()
	if err != nil || !bytes.Equal(heard, message) {
		t.Errorf("the client heard %x, %v; want %x", heard, err, message)
	}
	if err := s.Connect(address, lab.ServicePort); !lab.Refused(err) {
		t.Errorf("connect to %s: got %v, want refused", address, err)
	}
	after := s.results()
	for result, count := range after {
		want := before[result]
		if result == reason {
			want++
		}
		if count != want {
			t.Errorf("responses %q: got %d, want %d", result, count, want)
		}
	}
}

// expectLearned has the resolver answer, which opens the address at once.
func (s *stage) expectLearned(t *testing.T, query *dns.Msg) {
	t.Helper()
	address := s.next()
	message := s.pack(answer(query, address))
	s.must(s.resolver.Say(s.asker.Address, message))
	heard, err := s.asker.Hear()
	if err != nil || !bytes.Equal(heard, message) {
		t.Errorf("the client heard %x, %v; want %x", heard, err, message)
	}
	if err := s.Connect(address, lab.ServicePort); err != nil {
		t.Errorf("connect to %s right after the true answer: %v", address, err)
	}
}

// TestSpoofedAnswers: a host that claims to be the resolver, and does not know what the client asks, opens
// nothing. Each try is counted under its reason and reaches the client, and the true answer is learned.
func TestSpoofedAnswers(t *testing.T) {
	_, stages := newStages(t)
	tests := []struct {
		fact   string
		reason string
		edit   func(*dns.Msg)
		bytes  func([]byte) []byte
		uses   bool // the question up: nobody could tell it from a true answer
	}{
		{"of a wrong id", "no_query", func(m *dns.Msg) { m.Id++ }, nil, false},
		{"to another name", "wrong_question", func(m *dns.Msg) { m.Question[0].Name = "evil.example." }, nil, false},
		{"to another type", "wrong_question", func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeHTTPS }, nil, false},
		{"to another class", "wrong_question", func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }, nil, false},
		{"to two questions", "question_count", func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }, nil, false},
		{"to none", "question_count", func(m *dns.Msg) { m.Question = nil }, nil, false},
		{"that is a query", "not_response", func(m *dns.Msg) { m.Response = false }, nil, false},
		{"of another opcode", "opcode", func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }, nil, false},
		{"cut short", "malformed", nil, func(wire []byte) []byte { return wire[:len(wire)-1] }, false},
		{"with a pointer to itself", "malformed", nil, func(wire []byte) []byte {
			at := 12 + len("api.example") + 2 + 4 // the owner of the answer
			return append(append(wire[:at:at], 0xc0, byte(at)), wire[at+2:]...)
		}, false},
		{"of a few bytes", "malformed", nil, func(wire []byte) []byte { return wire[:7] }, false},
		{"that an error is told in", "rcode", func(m *dns.Msg) { m.Rcode = dns.RcodeNameError }, nil, true},
		{"that is truncated", "truncated", func(m *dns.Msg) { m.Truncated = true }, nil, true},
	}
	for _, s := range stages {
		family := s.asker.Address.Addr()
		for _, test := range tests {
			t.Run(test.fact+", "+family.String(), func(t *testing.T) {
				query := s.ask()
				address := s.next()
				message := answer(query, address)
				message.Compress = true
				if test.edit != nil {
					test.edit(message)
				}
				wire := s.pack(message)
				if test.bytes != nil {
					wire = test.bytes(wire)
				}
				s.expectNotLearned(t, s.asker, wire, address, test.reason, func() error {
					return s.offPath.Spoof(s.resolver.Address, s.asker.Address, wire)
				})
				if test.uses {
					query = s.ask()
				}
				s.expectLearned(t, query)
				late := s.next()
				again := s.pack(answer(query, late))
				s.expectNotLearned(t, s.asker, again, late, "duplicate", func() error {
					return s.offPath.Spoof(s.resolver.Address, s.asker.Address, again)
				})
			})
		}
	}
}

// TestSpoofedToAnotherPort: an answer to a port from which nobody asked belongs to no question.
func TestSpoofedToAnotherPort(t *testing.T) {
	f, stages := newStages(t)
	for _, s := range stages {
		family := s.asker.Address.Addr()
		t.Run(family.String(), func(t *testing.T) {
			other, err := f.NewAsker(f.Client, family)
			f.must(err)
			query := s.ask()
			address := s.next()
			wire := s.pack(answer(query, address))
			s.expectNotLearned(t, other, wire, address, "no_query", func() error {
				return s.offPath.Spoof(s.resolver.Address, other.Address, wire)
			})
			s.expectLearned(t, query)
		})
	}
}

// TestSpoofedBeforeTheQuestion: who sends to a port before a client asks from it makes conntrack take the
// question for a reply. The true answer is learned all the same.
func TestSpoofedBeforeTheQuestion(t *testing.T) {
	forEachBackend(t, func(t *testing.T, backend string) {
		_, stages := newStages(t, "--iptables", backend)
		for _, s := range stages {
			t.Run(s.asker.Address.Addr().String(), func(t *testing.T) {
				address := s.next()
				wire := s.pack(answer(new(dns.Msg).SetQuestion("api.example.", dns.TypeA), address))
				s.expectNotLearned(t, s.asker, wire, address, "no_query", func() error {
					return s.offPath.Spoof(s.resolver.Address, s.asker.Address, wire)
				})
				s.expectLearned(t, s.ask())
				s.expectLearned(t, s.ask())
			})
		}
	})
}

// TestAnswerOfAnotherServer: what another server sends to the port that asked is none of its business.
func TestAnswerOfAnotherServer(t *testing.T) {
	_, stages := newStages(t)
	for i, s := range stages {
		t.Run(s.asker.Address.Addr().String(), func(t *testing.T) {
			query := s.ask()
			address := s.next()
			wire := s.pack(answer(query, address))
			server := netip.AddrPortFrom([]netip.Addr{lab.OffPathV4, lab.OffPathV6}[i], 53)
			s.expectNotLearned(t, s.asker, wire, address, "", func() error {
				return s.offPath.Spoof(server, s.asker.Address, wire)
			})
			s.expectLearned(t, query)
		})
	}
}

// TestAnswerOfClassCH: addresses of a class that is not the Internet's are not those of names.
func TestAnswerOfClassCH(t *testing.T) {
	_, stages := newStages(t)
	for _, s := range stages {
		t.Run(s.asker.Address.Addr().String(), func(t *testing.T) {
			query := s.ask(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS })
			address := s.next()
			wire := s.pack(answer(query, address))
			s.expectNotLearned(t, s.asker, wire, address, "class", func() error { return s.resolver.Say(s.asker.Address, wire) })
			s.expectLearned(t, s.ask())
		})
	}
}

// TestLateAnswer: a question waits for its answer for --dns-query-timeout.
func TestLateAnswer(t *testing.T) {
	const timeout = 50 * time.Millisecond
	_, stages := newStages(t, "--dns-query-timeout", timeout.String())
	for _, s := range stages {
		t.Run(s.asker.Address.Addr().String(), func(t *testing.T) {
			query := s.ask()
			address := s.next()
			wire := s.pack(answer(query, address))
			s.expectNotLearned(t, s.asker, wire, address, "late", func() error {
				<-time.After(timeout) // since it was heard, which was after it was asked
				return s.resolver.Say(s.asker.Address, wire)
			})
			s.expectNotLearned(t, s.asker, wire, address, "late", func() error { return s.resolver.Say(s.asker.Address, wire) })
		})
	}
}
