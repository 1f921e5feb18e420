package bpf_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/miekg/dns"

	"github.com/nameward/nameward/bpf"
)

// The largest message there is, in segments of a page.
func TestStreamOfLargeMessages(t *testing.T) {
	e := newExchange(t)
	c := e.connect()
	const addresses = 1000
	asked := query(t, 1, "api.example.com")
	answer := reply(t, asked)
	answer.Answer = largeAnswer(addresses)
	padding := &dns.TXT{Hdr: dns.RR_Header{Name: "api.example.com.", Rrtype: dns.TypeTXT, Class: dns.ClassINET}}
	answer.Answer = append(answer.Answer, padding)
	for len(pack(t, answer)) < 65535 {
		padding.Txt = append(padding.Txt, string(make([]byte, min(255, 65534-len(pack(t, answer))))))
	}
	c.from(0, framed(pack(t, asked)))
	whole := pack(t, answer)
	if len(whole) != 65535 {
		t.Fatalf("message of %d bytes", len(whole))
	}
	stream := framed(whole)
	const page = 3000
	var offsets []int
	for offset := 0; offset < len(stream); offset += page {
		offsets = append(offsets, offset)
	}
	// The second comes last: all others wait behind the gap.
	offsets = append(slices.Delete(offsets, 1, 2), page)
	for i, offset := range offsets {
		if c.to(offset, stream[offset:min(len(stream), offset+page)]) != 0 {
			t.Fatalf("segment %d is held back", i)
		}
		if last := i == len(offsets)-1; e.sets("10.9.0.0")[apiSet] != last {
			t.Fatalf("known after segment %d of %d: %v", i, len(offsets), !last)
		}
	}
	for i := range addresses {
		if !e.sets(netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}).String())[apiSet] {
			t.Fatalf("address %d is not known", i)
		}
	}
	if got := e.Counter(bpf.DatapathCounterCOUNTER_ADDRESSES_OVER_LIMIT); got != 0 {
		t.Errorf("%d over the limit", got)
	}
}

func largeAnswer(addresses int) (records []dns.RR) {
	for i := range addresses {
		header := dns.RR_Header{Name: "api.example.com.", Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}
		records = append(records, &dns.A{Hdr: header, A: []byte{10, 9, byte(i >> 8), byte(i)}})
	}
	return records
}

// What would be further ahead than a buffer reaches, or behind more gaps than can be noted, is sent again.
func TestStreamHoldsBack(t *testing.T) {
	e := newExchange(t)
	c := e.connect()
	queries, answers := exchanges(t, 1)
	answered := framed(answers...)
	c.from(0, framed(queries...))
	if c.to(65537, []byte{1}) != 1 {
		t.Error("what is too far ahead passed")
	}
	for i := range int(bpf.DatapathStreamLimitSTREAM_PIECES) {
		if c.to(2+2*i, answered[2+2*i:][:1]) != 0 {
			t.Errorf("piece %d is held back", i)
		}
	}
	if c.to(40, answered[40:41]) != 1 {
		t.Error("one piece more passed")
	}
	c.knows(0, 1)
	if got := e.Counter(heldBack); got != 2 {
		t.Errorf("%d counted as held back, want 2", got)
	}
	c.to(0, answered[:41])
	c.to(41, answered[41:])
	c.knows(1, 1)
}

// Nothing is held back for ever: when what is missing does not come, the stream is lost, and passes.
func TestStreamIsLost(t *testing.T) {
	e := newExchange(t)
	c := e.connect()
	queries, answers := exchanges(t, 1)
	c.from(0, framed(queries...))
	if c.to(65537, []byte{1}) != 1 {
		t.Fatal("passed")
	}
	var key bpf.DatapathStreamKey
	var stream bpf.DatapathStream
	for iterator := e.Streams.Iterate(); iterator.Next(&key, &stream); {
		if stream.HeldBackSinceNs != 0 {
			stream.HeldBackSinceNs = 1 // long ago
			e.Put(e.Streams, key, stream)
		}
	}
	if c.to(65537, []byte{1}) != 0 {
		t.Error("still held back")
	}
	if c.to(0, framed(answers...)) != 0 {
		t.Error("a lost stream is held back")
	}
	c.knows(0, 1)
	if got := e.Counter(unfollowed); got != 2 {
		t.Errorf("%d unfollowed, want 2", got)
	}
}

// There are buffers for so many messages that are not whole; the one that waits longest gives way.
func TestStreamBuffersAreBounded(t *testing.T) {
	e := newExchange(t)
	queries, answers := exchanges(t, 1)
	answered := framed(answers...)
	const streams = int(bpf.DatapathStreamLimitSTREAM_BUFFERS) + 1
	connections := make([]*connection, streams)
	for i := range connections {
		e.client = netip.AddrPortFrom(e.client.Addr(), uint16(30000+i))
		own := *e
		connections[i] = own.connect()
		connections[i].from(0, framed(queries...))
		connections[i].to(0, answered[:5])
	}
	for i, c := range slices.Backward(connections) {
		e.Forget(e.Mappings)
		if c.to(5, answered[5:]) != 0 {
			t.Errorf("stream %d is held back", i)
		}
		c.knows(min(i, 1), 1) // the first one is lost
	}
	if got := e.Counter(unfollowed); got != 1 {
		t.Errorf("%d unfollowed, want 1", got)
	}
	for i := range uint32(streams - 1) {
		var buffer bpf.DatapathStreamBuffer
		if err := e.StreamBuffers.Lookup(i, &buffer); err != nil || buffer.Owner != 0 || buffer.Claimed != 0 {
			t.Errorf("buffer %d is left with %d, claimed %d: %v", i, buffer.Owner, buffer.Claimed, err)
		}
	}
}

// The same answer over TCP to another client, or from another resolver, answers nothing.
func TestStreamOfAnother(t *testing.T) {
	e := newExchange(t)
	c := e.connect()
	queries, answers := exchanges(t, 1)
	c.from(0, framed(queries...))
	own := c.client
	c.client = netip.MustParseAddrPort("10.1.0.7:40001")
	c.open()
	c.to(0, framed(answers...))
	c.client = netip.MustParseAddrPort("10.1.0.8:40000")
	c.open()
	c.to(0, framed(answers...))
	c.knows(0, 1)
	if got := e.Counter(bpf.DatapathCounterCOUNTER_NO_QUERY); got != 2 {
		t.Errorf("%d without a query, want 2", got)
	}
	c.client = own
	e.deliver(answers[0]) // asked over TCP, answered over UDP
	c.knows(0, 1)
	c.to(0, framed(answers...))
	c.knows(1, 1)
}
