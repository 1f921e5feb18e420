package bpf_test

import (
	"encoding/hex"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/nameward/nameward/bpf"
)

// TestServiceHints: the address hints of HTTPS and SVCB records are learned for the owner of the record.
func TestServiceHints(t *testing.T) {
	e := newExchange(t)
	query := e.ask("api.example.com", dns.TypeHTTPS)
	e.deliver(pack(t, reply(t, query,
		"api.example.com. 300 IN CNAME x.cdn.test.",
		"x.cdn.test. 60 IN HTTPS 1 svc.example.com. alpn=h2 ipv4hint=192.0.2.1,127.0.0.1 ech=AAAA ipv6hint=2001:db8::1,::1",
		"other.example.com. 60 IN HTTPS 1 . ipv4hint=192.0.2.9")))
	for address, want := range map[string]map[uint32]bool{
		"192.0.2.1":   {apiSet: true, cdnSet: true},
		"2001:db8::1": {apiSet: true, cdnSet: true},
		"127.0.0.1":   {},
		"::1":         {},
		"192.0.2.9":   {},
	} {
		if diff := cmp.Diff(want, e.sets(address)); diff != "" {
			t.Errorf("match sets of %s (-want +got):\n%s", address, diff)
		}
	}
	if got := e.Counter(bpf.DatapathCounterCOUNTER_SPECIAL_ADDRESS); got != 2 {
		t.Errorf("%d special addresses, want 2", got)
	}
}

// TestServiceFaults: what RFC 9460, 2.2, calls malformed is not learned from, and neither is the rest.
func TestServiceFaults(t *testing.T) {
	e := newExchange(t)
	hint := []byte{0, 4, 0, 4, 192, 0, 2, 1}
	for fault, data := range map[string][]byte{
		"no target":             {0, 1},
		"target cut short":      {0, 1, 3, 'a', 'b'},
		"target compressed":     append([]byte{0, 1, 0xc0, 12}, hint...),
		"target without end":    {0, 1, 1, 'a'},
		"keys descend":          append(append([]byte{0, 1, 0, 0, 6, 0, 16}, make([]byte, 16)...), hint...),
		"key twice":             append(append([]byte{0, 1, 0}, hint...), hint...),
		"hint of no address":    {0, 1, 0, 0, 4, 0, 0},
		"hint of half address":  {0, 1, 0, 0, 4, 0, 3, 192, 0, 2},
		"hint longer than data": {0, 1, 0, 0, 4, 0, 8, 192, 0, 2, 1},
		"key cut short":         append(append([]byte{0, 1, 0}, hint...), 0, 5, 0),
	} {
		e.reset(t)
		query := e.ask("api.example.com", dns.TypeHTTPS)
		message := reply(t, query, answerA)
		message.Answer = append(message.Answer, &dns.RFC3597{
			Hdr:   dns.RR_Header{Name: "api.example.com.", Rrtype: dns.TypeHTTPS, Class: dns.ClassINET, Ttl: 60, Rdlength: uint16(len(data))},
			Rdata: hex.EncodeToString(data),
		})
		counted := e.deliver(pack(t, message))
		if counted[bpf.DatapathCounterCOUNTER_MALFORMED] != 1 || len(e.Answers()) != 0 {
			t.Errorf("%s: counted %v, want malformed and nothing learned", fault, counted)
		}
	}
}

// TestServiceAlias: an alias has no parameters that count (RFC 9460, 2.4.2).
func TestServiceAlias(t *testing.T) {
	e := newExchange(t)
	query := e.ask("api.example.com", dns.TypeHTTPS)
	message := reply(t, query)
	message.Answer = append(message.Answer, &dns.RFC3597{
		Hdr:   dns.RR_Header{Name: "api.example.com.", Rrtype: dns.TypeHTTPS, Class: dns.ClassINET, Ttl: 60, Rdlength: 11},
		Rdata: hex.EncodeToString([]byte{0, 0, 0, 0, 4, 0, 4, 192, 0, 2, 1}),
	})
	if counted := e.deliver(pack(t, message)); counted[bpf.DatapathCounterCOUNTER_NO_ADDRESS] != 1 {
		t.Errorf("counted %v, want no address", counted)
	}
}

// TestProlongedHintsAreTold: only answers to questions for addresses may be prolonged without an event.
func TestProlongedHintsAreTold(t *testing.T) {
	e := newExchange(t)
	for _, ttl := range []string{"300", "300", "330"} {
		query := e.ask("api.example.com", dns.TypeHTTPS)
		e.deliver(pack(t, reply(t, query, "api.example.com. "+ttl+" IN HTTPS 1 . ipv4hint=192.0.2.1")))
	}
	// The second answer lives longer only by the time that passed, the third by 30 s of nearly 6 minutes.
	answers := e.Answers()
	if n := len(answers); n < 2 || answers[n-1].ExpiresAt <= answers[0].ExpiresAt {
		t.Errorf("events %+v, want one for each later expiry", answers)
	}
}
