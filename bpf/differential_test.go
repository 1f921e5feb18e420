package bpf_test

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/miekg/dns"

	"github.com/nameward/nameward/bpf"
)

// compare delivers a message and fails the test where the program and the oracle differ.
func (e *exchange) compare(message, query []byte) {
	e.t.Helper()
	e.send(query)
	counted := e.deliver(message)
	expected := expect(e.t, message, query)
	var reasons []bpf.DatapathCounter
	for counter := range counted {
		if counter <= bpf.DatapathCounterCOUNTER_BUSY {
			reasons = append(reasons, counter)
		}
	}
	if len(reasons) != 1 || !slices.Contains(expected.counters, reasons[0]) {
		e.t.Errorf("message %x:\ncounted %v, want one of %v", message, counted, expected.counters)
	}
	e.compareEvent(message, expected)
	for _, owner := range expected.owners {
		want := make(map[uint32]bool)
		for _, other := range expected.owners {
			for _, name := range expected.chain[:other.Names] {
				if set := matchSet(name); set != 0 && other.Address == owner.Address {
					want[set] = true
				}
			}
		}
		if diff := cmp.Diff(want, e.sets(owner.Address.String())); diff != "" {
			e.t.Errorf("message %x:\nmatch sets of %v (-want +got):\n%s", message, owner.Address, diff)
		}
	}
	e.Forget(e.Mappings)
	e.Forget(e.DatapathMaps.Answers)
}

func (e *exchange) compareEvent(message []byte, expected expectation) {
	e.t.Helper()
	answers := e.Answers()
	if len(expected.owners) == 0 {
		if len(answers) != 0 {
			e.t.Errorf("message %x:\nevents %+v, want none", message, answers)
		}
		return
	}
	if len(answers) != 1 {
		e.t.Errorf("message %x:\n%d events, want one", message, len(answers))
		return
	}
	var chain []string
	for _, name := range expected.chain {
		chain = append(chain, strings.TrimSuffix(name, "."))
	}
	if diff := cmp.Diff(chain, answers[0].Chain); diff != "" {
		e.t.Errorf("message %x:\nchain (-want +got):\n%s", message, diff)
	}
	if diff := cmp.Diff(expected.owners, answers[0].Owners, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		e.t.Errorf("message %x:\nowners (-want +got):\n%s", message, diff)
	}
}

// corpus gives well-formed answers to begin with.
func corpus(t testing.TB, query *dns.Msg) [][]byte {
	t.Helper()
	alias, second, host := "api.example.com. 300 IN CNAME x.cdn.test.", "x.cdn.test. 60 IN CNAME y.other.test.", "y.other.test. 60 IN A 192.0.2.7"
	var corpus [][]byte
	for _, records := range [][]string{
		{answerA},
		{answerA, "api.example.com. 60 IN AAAA 2001:db8::1", "api.example.com. 60 IN TXT hello"},
		{alias, second, host},
		{host, second, alias, "x.cdn.test. 60 IN A 192.0.2.8"},
		{second, "y.other.test. 60 IN AAAA fe80::1", alias, host, host},
		{"api.example.com. 60 IN HTTPS 1 . alpn=h2,h3 ipv4hint=192.0.2.1,192.0.2.2 ipv6hint=2001:db8::1"},
		{"x.cdn.test. 60 IN SVCB 2 svc.other.test. port=8443 ipv4hint=127.0.0.1,192.0.2.3", alias, "api.example.com. 60 IN HTTPS 0 x.cdn.test."},
		{"b.example.com. 60 IN A 192.0.2.9", alias, "x.cdn.test. 60 CH A 192.0.2.1", "x.cdn.test. 60 IN A 10.0.0.1"},
	} {
		for _, compress := range []bool{true, false} {
			message := reply(t, query, records...)
			message.Compress = compress
			corpus = append(corpus, pack(t, message))
		}
	}
	return corpus
}

// mutate changes a message in a few places, mostly behind the question.
func mutate(random *rand.Rand, message []byte, question int) []byte {
	message = slices.Clone(message)
	for range 1 + random.IntN(3) {
		from := question
		if random.IntN(10) == 0 {
			from = 2
		}
		at := from + random.IntN(max(1, len(message)-from))
		if at+2 > len(message) {
			continue
		}
		switch random.IntN(8) {
		case 0:
			message[at] ^= 1 << random.IntN(8)
		case 1:
			message[at] = byte(random.Uint32())
		case 2:
			message = message[:at]
		case 3: // a pointer
			binary.BigEndian.PutUint16(message[at:], 0xc000|uint16(random.IntN(len(message)+4)))
		case 4: // a record's type, a length, a count
			binary.BigEndian.PutUint16(message[at:], []uint16{0, 1, 2, 3, 4, 5, 6, 16, 28, 64, 65}[random.IntN(11)])
		case 5: // a piece twice
			end := at + random.IntN(len(message)-at)
			message = slices.Insert(message, at, slices.Clone(message[at:end])...)
		case 6: // a piece away
			message = slices.Delete(message, at, at+random.IntN(len(message)-at))
		case 7: // more or fewer records
			message[7] = byte(random.IntN(8))
		}
		if len(message) <= from+2 {
			return message
		}
	}
	return message
}

// TestDifferential is a short, repeatable slice of FuzzDifferential.
func TestDifferential(t *testing.T) {
	e := newExchange(t)
	query := new(dns.Msg).SetQuestion("api.example.com.", dns.TypeA)
	query.Id = 4711
	wire := pack(t, query)
	random := rand.New(rand.NewPCG(1, 2))
	messages := corpus(t, query)
	for _, message := range messages {
		e.compare(message, wire)
	}
	for range 4000 {
		e.compare(mutate(random, messages[random.IntN(len(messages))], len(wire)), wire)
		if t.Failed() {
			return
		}
	}
}

func FuzzDifferential(f *testing.F) {
	e := newExchange(f)
	query := new(dns.Msg).SetQuestion("api.example.com.", dns.TypeA)
	query.Id = 4711
	wire := pack(f, query)
	for _, message := range corpus(f, query) {
		f.Add(message)
	}
	const largest = 2000 // BPF_PROG_TEST_RUN takes no more than a page
	f.Fuzz(func(t *testing.T, message []byte) {
		if len(message) > largest {
			t.Skip("too large for a test run")
		}
		e.reset(t)
		e.compare(message, wire)
	})
}
