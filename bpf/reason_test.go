package bpf_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
)

const answerA = "api.example.com. 60 IN A 192.0.2.1"

// Every way of not being learned has its counter, and only that one moves.
func TestReasons(t *testing.T) {
	edit := func(change func(*dns.Msg)) func(*testing.T, *exchange) []byte {
		return func(t *testing.T, e *exchange) []byte {
			answer := reply(t, e.ask("api.example.com", dns.TypeA), answerA)
			change(answer)
			return pack(t, answer)
		}
	}
	tests := []struct {
		fact   string
		want   bpf.DatapathCounter
		answer func(*testing.T, *exchange) []byte
	}{
		{"TC", bpf.DatapathCounterCOUNTER_TRUNCATED, edit(func(m *dns.Msg) { m.Truncated = true })},
		{"RCODE", bpf.DatapathCounterCOUNTER_RCODE, edit(func(m *dns.Msg) { m.Rcode = dns.RcodeNameError })},
		{"opcode", bpf.DatapathCounterCOUNTER_OPCODE, edit(func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify })},
		{"QR", bpf.DatapathCounterCOUNTER_NOT_RESPONSE, edit(func(m *dns.Msg) { m.Response = false })},
		{"wrong id", bpf.DatapathCounterCOUNTER_NO_QUERY, edit(func(m *dns.Msg) { m.Id++ })},
		{"wrong name", bpf.DatapathCounterCOUNTER_WRONG_QUESTION, edit(func(m *dns.Msg) { m.Question[0].Name = "b.example.com." })},
		{"wrong type", bpf.DatapathCounterCOUNTER_WRONG_QUESTION, edit(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAAAA })},
		{"wrong class", bpf.DatapathCounterCOUNTER_WRONG_QUESTION, edit(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS })},
		{"two questions", bpf.DatapathCounterCOUNTER_QUESTION_COUNT, edit(func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) })},
		{"no question", bpf.DatapathCounterCOUNTER_QUESTION_COUNT, edit(func(m *dns.Msg) { m.Question = nil })},
		{"no address", bpf.DatapathCounterCOUNTER_NO_ADDRESS, edit(func(m *dns.Msg) { m.Answer = nil })},
		{"cut short", bpf.DatapathCounterCOUNTER_MALFORMED, func(t *testing.T, e *exchange) []byte {
			wire := pack(t, reply(t, e.ask("api.example.com", dns.TypeA), answerA))
			return wire[:len(wire)-1]
		}},
		{"class CH", bpf.DatapathCounterCOUNTER_CLASS, func(t *testing.T, e *exchange) []byte {
			query := new(dns.Msg).SetQuestion("api.example.com.", dns.TypeA)
			query.Question[0].Qclass = dns.ClassCHAOS
			e.send(pack(t, query))
			return pack(t, reply(t, query, answerA))
		}},
		{"late", bpf.DatapathCounterCOUNTER_LATE, func(t *testing.T, e *exchange) []byte {
			query := e.ask("api.example.com", dns.TypeA)
			e.Settings(func(s *bpf.DatapathSettings) { s.QueryTimeoutNs = 0 })
			return pack(t, reply(t, query, answerA))
		}},
	}
	e := newExchange(t)
	for _, test := range tests {
		t.Run(test.fact, func(t *testing.T) {
			e.reset(t)
			message := test.answer(t, e)
			got := e.deliver(message)
			if diff := cmp.Diff(map[bpf.DatapathCounter]uint64{test.want: 1}, got); diff != "" {
				t.Errorf("counters (-want +got):\n%s", diff)
			}
			e.learnedNothing()
		})
	}
}

func TestDuplicateIsNotLearned(t *testing.T) {
	e := newExchange(t)
	query := e.ask("api.example.com", dns.TypeA)
	e.deliver(pack(t, reply(t, query, answerA)))
	got := e.deliver(pack(t, reply(t, query, "api.example.com. 60 IN A 192.0.2.2")))
	if diff := cmp.Diff(map[bpf.DatapathCounter]uint64{bpf.DatapathCounterCOUNTER_DUPLICATE: 1}, got); diff != "" {
		t.Errorf("counters (-want +got):\n%s", diff)
	}
	if sets := e.sets("192.0.2.2"); len(sets) != 0 {
		t.Errorf("the second answer was learned: %v", sets)
	}
	if got := e.resolve("api.example.com", answerA); got[bpf.DatapathCounterCOUNTER_LEARNED] != 1 {
		t.Errorf("asked again: counted %v", got)
	}
}

func TestMalformedLeavesTheQuestionOpen(t *testing.T) {
	e := newExchange(t)
	wire := pack(t, reply(t, e.ask("api.example.com", dns.TypeA), answerA))
	e.deliver(wire[:len(wire)-1])
	if got := e.deliver(wire); got[bpf.DatapathCounterCOUNTER_LEARNED] != 1 {
		t.Errorf("the true answer: counted %v", got)
	}
}

func TestErrorUsesTheQuestionUp(t *testing.T) {
	e := newExchange(t)
	query := e.ask("api.example.com", dns.TypeA)
	refusal := reply(t, query)
	refusal.Rcode = dns.RcodeServerFailure
	e.deliver(pack(t, refusal))
	if got := e.deliver(pack(t, reply(t, query, answerA))); got[bpf.DatapathCounterCOUNTER_DUPLICATE] != 1 {
		t.Errorf("counted %v", got)
	}
}

func TestManyQuestionsUnderOneID(t *testing.T) {
	e := newExchange(t)
	four, six := e.ask("api.example.com", dns.TypeA), e.ask("api.example.com", dns.TypeAAAA)
	for _, message := range []*dns.Msg{
		reply(t, six, "api.example.com. 60 IN AAAA 2001:db8::1"),
		reply(t, four, answerA),
	} {
		if got := e.deliver(pack(t, message)); got[bpf.DatapathCounterCOUNTER_LEARNED] != 1 {
			t.Errorf("%v: counted %v", message.Question, got)
		}
	}
	var asked []*dns.Msg
	for _, name := range []string{"a.example.com", "b.example.com", "c.example.com", "d.example.com"} {
		asked = append(asked, e.ask(name, dns.TypeA))
	}
	for _, query := range asked {
		if got := e.deliver(pack(t, reply(t, query, query.Question[0].Name+" 60 IN A 192.0.2.9"))); got[bpf.DatapathCounterCOUNTER_LEARNED] != 1 {
			t.Errorf("%v: counted %v", query.Question, got)
		}
	}
}

func TestQueriesToOthersAreNotRemembered(t *testing.T) {
	e := newExchange(t)
	query := pack(t, new(dns.Msg).SetQuestion("api.example.com.", dns.TypeA))
	other := netip.MustParseAddrPort("10.0.0.54:53")
	e.Run(e.DnsQueryForwarded, bpftest.Datagram(e.client, other, query))
	e.Put(e.Endpoints, endpoint(other, bpftest.UDP), bpf.DatapathEndpointFlagENDPOINT_SERVER)
	e.Run(e.DnsQueryForwarded, bpftest.Datagram(e.client, other, query))
	if counted := e.Counted(); len(counted) != 0 {
		t.Errorf("counted %v", counted)
	}
}

func TestMalformedQueries(t *testing.T) {
	e := newExchange(t)
	query := pack(t, new(dns.Msg).SetQuestion("api.example.com.", dns.TypeA))
	for length := range query {
		e.send(query[:length])
	}
	binary.BigEndian.PutUint16(query[4:], 2) // questions
	e.send(query)
	want := map[bpf.DatapathCounter]uint64{bpf.DatapathCounterCOUNTER_QUERY_MALFORMED: uint64(len(query)) + 1}
	if diff := cmp.Diff(want, e.Counted()); diff != "" {
		t.Errorf("counters (-want +got):\n%s", diff)
	}
}

func TestUntrustedIsOnlyCounted(t *testing.T) {
	e := newExchange(t)
	message := pack(t, reply(t, e.ask("api.example.com", dns.TypeA), answerA))
	e.ResetCounters()
	e.Run(e.DnsUntrusted, bpftest.Datagram(e.resolver, e.client, message))
	want := map[bpf.DatapathCounter]uint64{bpf.DatapathCounterCOUNTER_UNTRUSTED: 1}
	if diff := cmp.Diff(want, e.Counted()); diff != "" {
		t.Errorf("counters (-want +got):\n%s", diff)
	}
	e.learnedNothing()
}

func TestBusy(t *testing.T) {
	e := newExchange(t)
	var key bpf.DatapathScratchLimit
	for ; e.Scratch.MaxEntries() > uint32(key); key++ {
		e.Put(e.Scratch, key, bpf.DatapathScratch{Claimed: 1})
	}
	e.ask("api.example.com", dns.TypeA)
	if got := e.Counted()[bpf.DatapathCounterCOUNTER_BUSY]; got != 1 {
		t.Errorf("COUNTER_BUSY is %d with no scratch free", got)
	}
}

// Every path gives its scratch back: otherwise a CPU would be deaf after a few packets.
func TestScratchIsReleased(t *testing.T) {
	e := newExchange(t)
	wire := pack(t, reply(t, e.ask("api.example.com", dns.TypeA), answerA))
	for length := range len(wire) + 1 {
		e.deliver(wire[:length])
		e.send(wire[:length])
	}
	for key := range bpf.DatapathScratchLimit(e.Scratch.MaxEntries()) {
		var scratch bpf.DatapathScratch
		if err := e.Scratch.Lookup(key, &scratch); err != nil {
			t.Fatalf("look up scratch %d: %v", key, err)
		}
		if scratch.Claimed != 0 || scratch.Zero != 0 {
			t.Errorf("scratch %d: claimed %d, zero %d", key, scratch.Claimed, scratch.Zero)
		}
	}
}
