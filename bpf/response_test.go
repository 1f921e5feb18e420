package bpf_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/miekg/dns"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/domain/domaintest"
	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
)

func TestPatternsMatch(t *testing.T) {
	e := newExchange(t)
	e.SetState(1, 1)
	for _, test := range domaintest.Cases() {
		t.Run(test.Fact, func(t *testing.T) {
			e.reset(t)
			e.SetState(1, 1)
			pattern, err := domain.ParsePattern(test.Pattern)
			if err != nil {
				t.Fatal(err)
			}
			e.lay(pattern, 7)
			defer e.lay(pattern, 0)
			question := slices.Concat(make([]byte, 12), test.Wire(), []byte{0, 1, 0, 1})
			question[5] = 1
			e.send(question)
			answer := slices.Concat(question, []byte{0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1})
			answer[2], answer[7] = 0x80, 1
			e.deliver(answer)
			if got := e.sets("192.0.2.1")[7]; got != test.Match {
				t.Errorf("%s on %q: got %v, want %v", test.Pattern, test.Name, got, test.Match)
			}
		})
	}
}

// lay gives the only pattern of generation 1 its match set; 0 takes it away.
func (e *exchange) lay(pattern domain.Pattern, set uint32) {
	e.t.Helper()
	base := pattern.Base().String()
	form := map[domain.Form]bpf.DatapathGeneralForm{
		domain.Labels:      bpf.DatapathGeneralFormGENERAL_LABELS,
		domain.Within:      bpf.DatapathGeneralFormGENERAL_WITHIN,
		domain.BelowWithin: bpf.DatapathGeneralFormGENERAL_BELOW_WITHIN,
	}[pattern.Form()]
	switch pattern.Form() {
	case domain.Exact:
		e.Pattern(1, base, set, 0)
	case domain.Below:
		e.Pattern(1, base, 0, set)
	case domain.Every:
		e.Every(1, set)
	default:
		base = strings.TrimSuffix(base, ".")
		prefix, suffix := pattern.Affixes()
		e.General(1, 5, bpf.DatapathGeneralPattern{MatchSet: set, Form: form}, pattern.Head(), prefix, suffix, base)
		e.List(1, base, uint16(min(set, 1)*5))
	}
}

func TestLearns(t *testing.T) {
	const alias, host = "api.example.com. 300 IN CNAME x.cdn.test.", "x.cdn.test. 60 IN A 192.0.2.1"
	both := map[uint32]bool{apiSet: true, cdnSet: true}
	tests := []struct {
		fact    string
		name    string
		records []string
		want    map[uint32]bool // of 192.0.2.1
		counted bpf.DatapathCounter
	}{
		{"an exact name", "api.example.com", []string{answerA}, map[uint32]bool{apiSet: true}, bpf.DatapathCounterCOUNTER_LEARNED},
		{"a name in another case", "API.eXample.com", []string{"aPi.example.com. 60 IN A 192.0.2.1"}, map[uint32]bool{apiSet: true}, bpf.DatapathCounterCOUNTER_LEARNED},
		{"a name below", "x.y.example.com", []string{"x.y.example.com. 60 IN A 192.0.2.1"}, map[uint32]bool{belowSet: true}, bpf.DatapathCounterCOUNTER_LEARNED},
		{"an apex", "example.com", []string{"example.com. 60 IN A 192.0.2.1"}, map[uint32]bool{apexSet: true}, bpf.DatapathCounterCOUNTER_LEARNED},
		{"below a node without wildcard, the next one up", "x.api.example.com", []string{"x.api.example.com. 60 IN A 192.0.2.1"}, map[uint32]bool{belowSet: true}, bpf.DatapathCounterCOUNTER_LEARNED},
		{"nothing of a name that ends alike", "evilexample.com", []string{"evilexample.com. 60 IN A 192.0.2.1"}, map[uint32]bool{}, bpf.DatapathCounterCOUNTER_UNMATCHED},
		{"nothing of a dot inside a label", "a\\.example.com", []string{"a\\.example.com. 60 IN A 192.0.2.1"}, map[uint32]bool{}, bpf.DatapathCounterCOUNTER_UNMATCHED},
		{"nothing of the root", ".", []string{". 60 IN A 192.0.2.1"}, map[uint32]bool{}, bpf.DatapathCounterCOUNTER_UNMATCHED},
		{"nothing of class CH", "api.example.com", []string{"api.example.com. 60 CH A 192.0.2.1"}, map[uint32]bool{}, bpf.DatapathCounterCOUNTER_NO_ADDRESS},
		{"nothing of an unrelated owner", "api.example.com", []string{"b.example.com. 60 IN A 192.0.2.1"}, map[uint32]bool{}, bpf.DatapathCounterCOUNTER_NO_ADDRESS},
		{"nothing of a parent", "x.api.example.com", []string{"api.example.com. 60 IN A 192.0.2.1"}, map[uint32]bool{}, bpf.DatapathCounterCOUNTER_NO_ADDRESS},
		{"a chain", "api.example.com", []string{alias, host}, both, bpf.DatapathCounterCOUNTER_LEARNED},
		{"a chain backwards", "api.example.com", []string{host, alias}, both, bpf.DatapathCounterCOUNTER_LEARNED},
		{"an alias said twice", "api.example.com", []string{alias, host, alias}, both, bpf.DatapathCounterCOUNTER_LEARNED},
		{"only what the chain leads to", "x.cdn.test", []string{alias, host}, map[uint32]bool{cdnSet: true}, bpf.DatapathCounterCOUNTER_LEARNED},
		{"an alias without address", "api.example.com", []string{alias}, map[uint32]bool{}, bpf.DatapathCounterCOUNTER_NO_ADDRESS},
		{"nothing of two different aliases", "api.example.com", []string{alias, host, "api.example.com. 60 IN CNAME y.cdn.test."}, map[uint32]bool{}, bpf.DatapathCounterCOUNTER_MALFORMED},
		{"nothing of a circle", "api.example.com", []string{alias, "x.cdn.test. 60 IN CNAME api.example.com.", host}, map[uint32]bool{}, bpf.DatapathCounterCOUNTER_MALFORMED},
		{"nothing of a circle backwards", "api.example.com", []string{host, "x.cdn.test. 60 IN CNAME api.example.com.", alias}, map[uint32]bool{}, bpf.DatapathCounterCOUNTER_MALFORMED},
		{"nothing of an alias of itself", "api.example.com", []string{answerA, "api.example.com. 60 IN CNAME api.example.com."}, map[uint32]bool{}, bpf.DatapathCounterCOUNTER_MALFORMED},
		{"a chain beside a circle of others", "api.example.com", []string{"l.test. 60 IN CNAME l.test.", alias, host}, both, bpf.DatapathCounterCOUNTER_LEARNED},
		{"addresses of an alias's owner", "api.example.com", []string{answerA, alias}, map[uint32]bool{apiSet: true}, bpf.DatapathCounterCOUNTER_LEARNED},
		{"beside other types", "api.example.com", []string{"api.example.com. 60 IN TXT hello", answerA}, map[uint32]bool{apiSet: true}, bpf.DatapathCounterCOUNTER_LEARNED},
	}
	e := newExchange(t)
	for _, test := range tests {
		t.Run(test.fact, func(t *testing.T) {
			e.reset(t)
			counted := e.resolve(test.name, test.records...)
			if diff := cmp.Diff(test.want, e.sets("192.0.2.1")); diff != "" {
				t.Errorf("match sets (-want +got):\n%s", diff)
			}
			if counted[test.counted] != 1 {
				t.Errorf("counted %v, want %d", counted, test.counted)
			}
		})
	}
}

func TestChainLength(t *testing.T) {
	chain := func(names int) []string {
		records := []string{fmt.Sprintf("n%d.cdn.test. 60 IN A 192.0.2.1", names-1)}
		for i := range names - 1 {
			records = append(records, fmt.Sprintf("n%d.cdn.test. 60 IN CNAME n%d.cdn.test.", i, i+1))
		}
		return records
	}
	e := newExchange(t)
	// 16 names, the last first: every record waits for one that comes later.
	records := chain(16)
	slices.Reverse(records[1:])
	if got := e.resolve("n0.cdn.test", records...); got[bpf.DatapathCounterCOUNTER_LEARNED] != 1 {
		t.Errorf("16 names: counted %v", got)
	}
	if answers := e.Answers(); len(answers) != 1 || len(answers[0].Chain) != 16 || answers[0].Owners[0].Names != 16 {
		t.Errorf("16 names: %+v", answers)
	}
	e.Forget(e.Mappings)
	if got := e.resolve("n0.cdn.test", chain(17)...); got[bpf.DatapathCounterCOUNTER_CHAIN_TOO_LONG] != 1 {
		t.Errorf("17 names: counted %v", got)
	}
	e.learnedNothing()
}

func TestOtherSectionsAreNotRead(t *testing.T) {
	e := newExchange(t)
	answer := reply(t, e.ask("api.example.com", dns.TypeA), answerA, "api.example.com. 60 IN A 192.0.2.2")
	answer.Ns, answer.Extra = answer.Answer[1:], answer.Answer[1:]
	answer.Answer = answer.Answer[:1]
	wire := pack(t, answer)
	wire = append(wire[:len(wire)-1], 0xff, 0xff) // a fault in them is none
	if got := e.deliver(wire); got[bpf.DatapathCounterCOUNTER_LEARNED] != 1 {
		t.Errorf("counted %v", got)
	}
	if sets := e.sets("192.0.2.2"); len(sets) != 0 {
		t.Errorf("an address outside the answer section has %v", sets)
	}
}

// All or nothing: whatever is cut off, not even the records before the cut are learned.
func TestTruncationLearnsNothing(t *testing.T) {
	e := newExchange(t)
	answer := reply(t, e.ask("api.example.com", dns.TypeA),
		answerA, "api.example.com. 60 IN CNAME x.cdn.test.",
		"x.cdn.test. 60 IN A 192.0.2.2", "x.cdn.test. 60 IN AAAA 2001:db8::2")
	wire := pack(t, answer)
	for length := range wire {
		if got := e.deliver(wire[:length]); got[bpf.DatapathCounterCOUNTER_MALFORMED] != 1 {
			t.Errorf("%d of %d bytes: counted %v", length, len(wire), got)
		}
	}
	e.learnedNothing()
	if got := e.deliver(wire); got[bpf.DatapathCounterCOUNTER_LEARNED] != 1 {
		t.Errorf("all bytes: counted %v", got)
	}
}

func TestPointers(t *testing.T) {
	address := []byte{0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1}
	question := slices.Concat(bpftest.Wire("api.example.com"), []byte{0, 0, 1, 0, 1})
	first := byte(12 + len(question)) // where the answer section begins
	tests := []struct {
		fact  string
		owner []byte
		want  bpf.DatapathCounter
	}{
		{"to the question", []byte{0xc0, 12}, bpf.DatapathCounterCOUNTER_LEARNED},
		{"into the question behind a label", []byte{3, 'A', 'p', 'i', 0xc0, 16}, bpf.DatapathCounterCOUNTER_LEARNED},
		{"none", slices.Concat(bpftest.Wire("api.example.com"), []byte{0}), bpf.DatapathCounterCOUNTER_LEARNED},
		{"into the header", []byte{0xc0, 11}, bpf.DatapathCounterCOUNTER_MALFORMED},
		{"to the message's beginning", []byte{0xc0, 0}, bpf.DatapathCounterCOUNTER_MALFORMED},
		{"to itself", []byte{0xc0, first}, bpf.DatapathCounterCOUNTER_MALFORMED},
		{"forward", []byte{0xc0, first + 2}, bpf.DatapathCounterCOUNTER_MALFORMED},
		{"to a label before it of the same name", []byte{1, 'a', 0xc0, first}, bpf.DatapathCounterCOUNTER_MALFORMED},
		{"behind the end", []byte{0xff, 0xff}, bpf.DatapathCounterCOUNTER_MALFORMED},
		{"reserved label type 01", []byte{0x40, 0, 0}, bpf.DatapathCounterCOUNTER_MALFORMED},
		{"reserved label type 10", []byte{0x80, 0, 0}, bpf.DatapathCounterCOUNTER_MALFORMED},
		{"over 255 bytes", slices.Concat(slices.Repeat(append([]byte{62}, strings.Repeat("x", 62)...), 4), []byte{0xc0, 12}), bpf.DatapathCounterCOUNTER_MALFORMED},
	}
	e := newExchange(t)
	for _, test := range tests {
		t.Run(test.fact, func(t *testing.T) {
			e.reset(t)
			header := make([]byte, 12)
			header[5] = 1
			e.send(append(header, question...))
			header[2], header[7] = 0x80, 1
			got := e.deliver(slices.Concat(header, question, test.owner, address))
			if got[test.want] != 1 {
				t.Errorf("counted %v, want %d", got, test.want)
			}
		})
	}
}

func TestSpecialAddressesAreNeverLearned(t *testing.T) {
	special := []string{
		"0.0.0.0", "0.1.2.3", "127.0.0.1", "127.255.255.255", "169.254.169.254", "224.0.0.1", "239.255.255.255", "255.255.255.255",
		"::", "::1", "::ffff:192.0.2.1", "fe80::1", "febf::1", "ff02::1",
	}
	ordinary := []string{
		"1.0.0.0", "10.0.0.1", "126.255.255.255", "128.0.0.0", "169.253.0.1", "169.255.0.1", "192.168.1.1", "223.255.255.255", "240.0.0.1", "255.255.255.254",
		"::2", "::1:0", "::fffe:192.0.2.1", "fe7f::1", "fec0::1", "fd00::1", "2001:db8::1", "1::",
	}
	e := newExchange(t)
	answer := reply(t, e.ask("api.example.com", dns.TypeA))
	for _, text := range slices.Concat(special, ordinary) {
		address := netip.MustParseAddr(text)
		header := dns.RR_Header{Name: "api.example.com.", Class: dns.ClassINET, Ttl: 60, Rrtype: dns.TypeA}
		if address.Is4() {
			answer.Answer = append(answer.Answer, &dns.A{Hdr: header, A: address.AsSlice()})
			continue
		}
		header.Rrtype = dns.TypeAAAA
		answer.Answer = append(answer.Answer, &dns.AAAA{Hdr: header, AAAA: address.AsSlice()})
	}
	got := e.deliver(pack(t, answer))
	if got[bpf.DatapathCounterCOUNTER_SPECIAL_ADDRESS] != uint64(len(special)) || got[bpf.DatapathCounterCOUNTER_LEARNED] != 1 {
		t.Errorf("counted %v", got)
	}
	for _, address := range special {
		if sets := e.sets(address); len(sets) != 0 {
			t.Errorf("%s has %v", address, sets)
		}
	}
	for _, address := range ordinary {
		if sets := e.sets(address); !sets[apiSet] {
			t.Errorf("%s was not learned", address)
		}
	}
}

func TestLifetime(t *testing.T) {
	tests := []struct {
		fact    string
		records []string
		want    time.Duration
	}{
		{"the TTL and the grace", []string{"api.example.com. 600 IN A 192.0.2.1"}, 600*time.Second + bpftest.Grace},
		{"not below the least", []string{"api.example.com. 1 IN A 192.0.2.1"}, bpftest.MinTTL + bpftest.Grace},
		{"not above the most", []string{"api.example.com. 604800 IN A 192.0.2.1"}, bpftest.MaxTTL + bpftest.Grace},
		{"2^31 and more is 0", []string{"api.example.com. 2147483648 IN A 192.0.2.1"}, bpftest.MinTTL + bpftest.Grace},
		{"2^31-1 is not", []string{"api.example.com. 2147483647 IN A 192.0.2.1"}, bpftest.MaxTTL + bpftest.Grace},
		{"the smallest of the addresses", []string{"api.example.com. 600 IN A 192.0.2.1", "api.example.com. 100 IN A 192.0.2.2"}, 100*time.Second + bpftest.Grace},
		{"the smallest of the chain", []string{"api.example.com. 200 IN CNAME x.cdn.test.", "x.cdn.test. 600 IN A 192.0.2.1"}, 200*time.Second + bpftest.Grace},
		{"others do not count", []string{"api.example.com. 600 IN A 192.0.2.1", "b.example.com. 100 IN A 192.0.2.2"}, 600*time.Second + bpftest.Grace},
	}
	e := newExchange(t)
	for _, test := range tests {
		t.Run(test.fact, func(t *testing.T) {
			e.reset(t)
			before := bpftest.Now(t)
			e.resolve("api.example.com", test.records...)
			earliest, latest := bpftest.Ticks(before+test.want), bpftest.Ticks(bpftest.Now(t)+test.want)+1
			got := e.Learned(netip.MustParseAddr("192.0.2.1"))[apiSet]
			if got < earliest || got > latest {
				t.Errorf("expires at %d, want %d to %d", got, earliest, latest)
			}
		})
	}
}

func TestIPv6(t *testing.T) {
	e := newExchange(t)
	e.client, e.resolver = netip.MustParseAddrPort("[fd01::7]:40000"), netip.MustParseAddrPort("[fd00::53]:5353")
	e.trust(e.resolver)
	got := e.resolve("api.example.com", "api.example.com. 60 IN AAAA 2001:db8::1", answerA)
	if got[bpf.DatapathCounterCOUNTER_LEARNED] != 1 || !e.sets("2001:db8::1")[apiSet] || !e.sets("192.0.2.1")[apiSet] {
		t.Errorf("counted %v", got)
	}
	answers := e.Answers()
	if len(answers) != 1 || netip.AddrFrom16(answers[0].Client.Bytes) != e.client.Addr() {
		t.Errorf("events %+v", answers)
	}
	e.ResetCounters()
	extended := e.ask("b.example.com", dns.TypeA)
	transport := bpftest.UDPHeader(e.resolver.Port(), e.client.Port(), pack(t, reply(t, extended, "b.example.com. 60 IN A 192.0.2.3")))
	hopByHop := append([]byte{bpftest.UDP, 0, 1, 4, 0, 0, 0, 0}, transport...)
	e.Run(e.DnsResponse, bpftest.IP(e.resolver.Addr(), e.client.Addr(), 0, hopByHop))
	if !e.sets("192.0.2.3")[belowSet] {
		t.Errorf("behind an extension header: counted %v", e.Counted())
	}
}

func TestBothGenerationsAreLearnedFor(t *testing.T) {
	e := newExchange(t)
	e.Pattern(1, "api.example.com", 201, 0)
	e.SetState(0, 1)
	e.resolve("api.example.com", answerA)
	if diff := cmp.Diff(map[uint32]bool{apiSet: true, 201: true}, e.sets("192.0.2.1")); diff != "" {
		t.Errorf("match sets (-want +got):\n%s", diff)
	}
	e.SetState(1, 1)
	e.resolve("api.example.com", "api.example.com. 60 IN A 192.0.2.2")
	if diff := cmp.Diff(map[uint32]bool{201: true}, e.sets("192.0.2.2")); diff != "" {
		t.Errorf("match sets of the new one alone (-want +got):\n%s", diff)
	}
	answers := e.Answers()
	if len(answers) != 2 || answers[0].Learning != 3 || answers[1].Learning != 2 {
		t.Errorf("events %+v", answers)
	}
}

func TestEvents(t *testing.T) {
	e := newExchange(t)
	records := []string{"API.example.com. 60 IN CNAME x.cdn.test.", "x.cdn.test. 60 IN A 192.0.2.1", "api.example.com. 60 IN A 192.0.2.2"}
	before := bpftest.Now(t)
	e.resolve("api.EXAMPLE.com", records...)
	answers := e.Answers()
	want := []bpftest.Answer{{
		DatapathAnswerEvent: bpf.DatapathAnswerEvent{
			Type: bpf.DatapathEventTypeEVENT_ANSWER, Learning: 1, Client: bpftest.Addr(e.client.Addr()),
			Addresses: 2, Names: 2, NamesBytes: 17 + 12, QuestionType: dns.TypeA,
		},
		Owners: []bpftest.Owner{{Address: netip.MustParseAddr("192.0.2.1"), Names: 2}, {Address: netip.MustParseAddr("192.0.2.2"), Names: 1}},
		Chain:  []string{"api.example.com", "x.cdn.test"},
	}}
	times := cmpopts.IgnoreFields(bpf.DatapathAnswerEvent{}, "LearnedAtNs", "ExpiresAt")
	if diff := cmp.Diff(want, answers, times, cmpopts.EquateComparable(netip.Addr{}), cmpopts.IgnoreUnexported(bpf.DatapathAnswerEvent{}, bpf.DatapathAddress{})); diff != "" {
		t.Fatalf("events (-want +got):\n%s", diff)
	}
	if at := time.Duration(answers[0].LearnedAtNs); at < before || at > bpftest.Now(t) {
		t.Errorf("learned at %v, asked at %v", at, before)
	}
	if expires := e.Learned(netip.MustParseAddr("192.0.2.1"))[cdnSet]; expires != answers[0].ExpiresAt {
		t.Errorf("the event expires at %d, the mapping at %d", answers[0].ExpiresAt, expires)
	}

	e.resolve("api.example.com", records[0], records[2], records[1])
	if answers := e.Answers(); len(answers) != 0 {
		t.Errorf("the same in another order is told again: %+v", answers)
	}
	e.resolve("api.example.com", records[0], records[1])
	if answers := e.Answers(); len(answers) != 1 {
		t.Errorf("other addresses: %+v", answers)
	}
	e.resolve("api.example.com", "api.example.com. 6000 IN CNAME x.cdn.test.", "x.cdn.test. 6000 IN A 192.0.2.1")
	if answers := e.Answers(); len(answers) != 1 {
		t.Errorf("much later an expiry: %+v", answers)
	}
	e.resolve("unmentioned.test", "unmentioned.test. 60 IN A 192.0.2.1")
	if answers := e.Answers(); len(answers) != 1 || answers[0].Chain[0] != "unmentioned.test" {
		t.Errorf("a name of no pattern: %+v", answers)
	}
}

func TestAddressesOverLimit(t *testing.T) {
	e := newExchange(t)
	e.Settings(func(s *bpf.DatapathSettings) { s.AddressesPerName = 2 })
	got := e.resolve("api.example.com", answerA, "api.example.com. 60 IN A 192.0.2.2", "api.example.com. 60 IN A 192.0.2.3")
	if got[bpf.DatapathCounterCOUNTER_ADDRESSES_OVER_LIMIT] != 1 || got[bpf.DatapathCounterCOUNTER_LEARNED] != 1 {
		t.Errorf("counted %v", got)
	}
	if sets := e.sets("192.0.2.3"); len(sets) != 0 {
		t.Errorf("the third address has %v", sets)
	}
}
