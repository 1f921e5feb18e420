package bpf_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
)

const (
	unfollowed = bpf.DatapathCounterCOUNTER_UNFOLLOWED
	learned    = bpf.DatapathCounterCOUNTER_LEARNED
	heldBack   = bpf.DatapathCounterCOUNTER_SEGMENT_HELD_BACK
)

// A connection is one between the client and the resolver of an exchange.
type connection struct {
	*exchange
	asked, answered uint32 // sequence numbers of the first bytes of either side
}

// connect opens a connection to the resolver over TCP, which may be trusted from now on.
func (e *exchange) connect() *connection {
	e.t.Helper()
	e.Put(e.Endpoints, endpoint(e.resolver, bpftest.TCP), bpf.DatapathEndpointFlagENDPOINT_RESOLVER)
	c := &connection{e, 0xffffff00, 0xfffffff0} // both wrap around soon
	c.open()
	return c
}

// open sends both SYNs.
func (c *connection) open() {
	c.t.Helper()
	c.Run(c.DnsQueryForwarded, bpftest.Segment(c.client, c.resolver, c.asked-1, bpftest.SYN, nil))
	c.Run(c.DnsResponse, bpftest.Segment(c.resolver, c.client, c.answered-1, bpftest.SYN|bpftest.ACK, nil))
}

// from runs the program on a piece of what the client sends, and gives its verdict.
func (c *connection) from(offset int, bytes []byte) uint32 {
	c.t.Helper()
	return c.Run(c.DnsQueryForwarded, bpftest.Segment(c.client, c.resolver, c.asked+uint32(offset), bpftest.ACK, bytes))
}

// to is the same of what the resolver sends.
func (c *connection) to(offset int, bytes []byte) uint32 {
	c.t.Helper()
	return c.Run(c.DnsResponse, bpftest.Segment(c.resolver, c.client, c.answered+uint32(offset), bpftest.ACK, bytes))
}

// framed puts its length before each message.
func framed(messages ...[]byte) []byte {
	var stream []byte
	for _, message := range messages {
		stream = append(binary.BigEndian.AppendUint16(stream, uint16(len(message))), message...)
	}
	return stream
}

// query is a question for the A records of a name.
func query(t testing.TB, id uint16, name string) *dns.Msg {
	t.Helper()
	message := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA)
	message.Id = id
	return message
}

// exchanges are some questions of one connection, and the answers: name i has the address 192.0.2.i.
func exchanges(t testing.TB, count int) (queries, answers [][]byte) {
	t.Helper()
	for i := range count {
		name := fmt.Sprintf("n%d.example.com", i)
		asked := query(t, uint16(i), name)
		queries = append(queries, pack(t, asked))
		answers = append(answers, pack(t, reply(t, asked, fmt.Sprintf("%s. 60 IN A 192.0.2.%d", name, i))))
	}
	return queries, answers
}

// knows fails the test unless the first so many addresses of exchanges are known, and no further one.
func (c *connection) knows(count, all int) {
	c.t.Helper()
	for i := range all {
		known := c.sets(fmt.Sprintf("192.0.2.%d", i))[belowSet]
		if known != (i < count) {
			c.t.Fatalf("address %d known: %v, want the first %d of %d", i, known, count, all)
		}
	}
}

func TestStreamInEverySplit(t *testing.T) {
	e := newExchange(t)
	queries, answers := exchanges(t, 2)
	asked, answered := framed(queries...), framed(answers...)
	first := len(framed(answers[0]))
	for at := 1; at < len(answered); at++ {
		e.reset(t)
		c := e.connect()
		c.asked += uint32(at) * 7919
		c.answered += uint32(at) * 104729
		c.open()
		half := min(at, len(asked)-1)
		if c.from(0, asked[:half])+c.from(half, asked[half:]) != 0 {
			t.Fatalf("split at %d: a query is refused", half)
		}
		if c.to(0, answered[:at]) != 0 {
			t.Fatalf("split at %d: held back", at)
		}
		whole := 0
		if at >= first {
			whole = 1
		}
		c.knows(whole, 2)
		if c.to(at, answered[at:]) != 0 {
			t.Fatalf("split at %d: held back", at)
		}
		c.knows(2, 2)
	}
	if got := e.Counter(unfollowed); got != 0 {
		t.Errorf("%d segments unfollowed", got)
	}
}

// A stream is any number of messages in any segments, which come in any order, some twice.
func TestStreamInAnyOrder(t *testing.T) {
	e := newExchange(t)
	random := rand.New(rand.NewPCG(3, 4))
	const streams = 300
	for round := range streams {
		e.reset(t)
		c := e.connect()
		c.asked, c.answered = random.Uint32(), random.Uint32()
		c.open()
		count := 1 + random.IntN(5)
		queries, answers := exchanges(t, count)
		for _, s := range shuffled(random, framed(queries...)) {
			if c.from(s.offset, s.bytes) != 0 {
				t.Fatalf("stream %d: a query is refused", round)
			}
		}
		stream := framed(answers...)
		passed := make([]bool, len(stream))
		for _, s := range shuffled(random, stream) {
			if c.to(s.offset, s.bytes) != 0 {
				t.Fatalf("stream %d: held back", round)
			}
			for i := range s.bytes {
				passed[s.offset+i] = true
			}
			whole, end := 0, 0
			for _, answer := range answers {
				end += len(framed(answer))
				if !slices.Contains(passed[:end], false) {
					whole++
				}
			}
			c.knows(whole, count)
		}
	}
}

type piece struct {
	offset int
	bytes  []byte
}

// shuffled cuts a stream into segments and shuffles them, a few at a time; some come twice, or overlap.
func shuffled(random *rand.Rand, stream []byte) []piece {
	var pieces []piece
	for offset := 0; offset < len(stream); {
		end := min(len(stream), offset+1+random.IntN(1+len(stream)/(1+random.IntN(8))))
		begin := offset
		if random.IntN(5) == 0 {
			begin = random.IntN(offset + 1)
		}
		pieces = append(pieces, piece{begin, stream[begin:end]})
		offset = end
	}
	const window = bpf.DatapathStreamLimitSTREAM_PIECES
	for i := range pieces {
		j := i + random.IntN(min(int(window), len(pieces)-i))
		pieces[i], pieces[j] = pieces[j], pieces[i]
	}
	if random.IntN(2) == 0 {
		pieces = append(pieces, pieces[random.IntN(len(pieces))])
	}
	return pieces
}

func TestStreamOverIPv6(t *testing.T) {
	e := newExchange(t)
	e.client, e.resolver = netip.MustParseAddrPort("[fd01::7]:40000"), netip.MustParseAddrPort("[fd00::53]:5353")
	c := e.connect()
	queries, answers := exchanges(t, 1)
	c.from(0, framed(queries...))
	c.to(0, framed(answers...))
	c.knows(1, 1)
}

// Where the messages of a stream begin whose own beginning was not seen is not guessed.
func TestStreamWithoutBeginning(t *testing.T) {
	e := newExchange(t)
	c := e.connect()
	queries, answers := exchanges(t, 1)
	c.from(0, framed(queries...))
	e.Forget(e.Streams)
	if c.to(0, framed(answers...)) != 0 {
		t.Error("held back")
	}
	c.knows(0, 1)
	if got := e.Counter(unfollowed); got != 1 {
		t.Errorf("%d unfollowed, want 1", got)
	}
	c.from(len(framed(queries...)), framed(queries...))
	if got := e.Counter(bpf.DatapathCounterCOUNTER_QUERY_UNFOLLOWED); got != 1 {
		t.Errorf("%d queries unfollowed, want 1", got)
	}
}

// A SYN that comes again changes nothing; one of the next connection between the same ports begins anew.
func TestStreamBeginsAnew(t *testing.T) {
	e := newExchange(t)
	c := e.connect()
	queries, answers := exchanges(t, 2)
	asked, answered := framed(queries...), framed(answers...)
	c.from(0, asked[:20])
	c.to(0, answered[:20])
	c.open()
	c.from(20, asked[20:])
	c.to(20, answered[20:])
	c.knows(2, 2)

	e.Forget(e.Mappings)
	c.to(len(answered), []byte{0xff, 0xff, 1, 2, 3}) // left waiting
	c.asked, c.answered = 77, 99
	c.open()
	c.from(0, asked)
	c.to(0, answered)
	c.knows(2, 2)
}

// Data may come with the SYN (RFC 7413).
func TestStreamBeginsWithData(t *testing.T) {
	e := newExchange(t)
	c := e.connect()
	c.asked, c.answered = 5, 6
	queries, answers := exchanges(t, 1)
	c.Run(c.DnsQueryForwarded, bpftest.Segment(c.client, c.resolver, c.asked-1, bpftest.SYN, framed(queries...)))
	c.Run(c.DnsResponse, bpftest.Segment(c.resolver, c.client, c.answered-1, bpftest.SYN|bpftest.ACK, framed(answers...)))
	c.knows(1, 1)
}

// A message that is no good says nothing of the next one.
func TestStreamGoesOnBehindFaults(t *testing.T) {
	e := newExchange(t)
	c := e.connect()
	queries, answers := exchanges(t, 2)
	c.from(0, framed(nil, []byte{1}, queries[0], make([]byte, 300), queries[1]))
	c.to(0, framed(nil, answers[0], make([]byte, 11), answers[1][:len(answers[1])-1], answers[1]))
	c.knows(2, 2)
	want := map[bpf.DatapathCounter]uint64{learned: 2, bpf.DatapathCounterCOUNTER_MALFORMED: 3}
	got := map[bpf.DatapathCounter]uint64{learned: e.Counter(learned), bpf.DatapathCounterCOUNTER_MALFORMED: e.Counter(bpf.DatapathCounterCOUNTER_MALFORMED)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("counted (-want +got):\n%s", diff)
	}
}

// A refused question is refused in whatever segments it comes, and each time that it is sent.
func TestStreamRefused(t *testing.T) {
	g := newAsker(t, enforced)
	g.rules(bpf.DatapathComponentCOMPONENT_QUESTION<<bpf.DatapathComponentCOMPONENT_SHIFT|belowSet, every(3, bpf.DatapathVerdictFlagVERDICT_DENY))
	e := &exchange{Datapath: g.Datapath, t: t, client: netip.MustParseAddrPort(asking), resolver: netip.MustParseAddrPort("10.0.0.53:53")}
	c := e.connect()
	queries, _ := exchanges(t, 1)
	other := pack(t, query(t, 9, "other.test"))
	asked := framed(other, queries[0])
	if c.from(0, framed(other)) != 0 {
		t.Fatal("another question is refused")
	}
	end := len(asked) - 1
	if c.from(len(framed(other)), asked[len(framed(other)):end]) != 0 {
		t.Error("a question that is not whole is refused")
	}
	for range 2 {
		if c.from(end, asked[end:]) != 1 {
			t.Error("the question is asked")
		}
	}
	c.asked = 4711
	c.open()
	for range 2 {
		if c.from(0, asked) != 1 {
			t.Error("the question is asked behind another")
		}
	}
	if got := e.Counter(bpf.DatapathCounterCOUNTER_QUERY_REFUSED); got != 4 {
		t.Errorf("%d refused, want 4", got)
	}
}

func TestUntrustedSegments(t *testing.T) {
	e := newExchange(t)
	for _, payload := range [][]byte{nil, {1}} {
		e.Run(e.DnsUntrusted, bpftest.Segment(e.resolver, e.client, 1, bpftest.ACK, payload))
	}
	if got := e.Counter(bpf.DatapathCounterCOUNTER_UNTRUSTED); got != 1 {
		t.Errorf("%d untrusted, want 1: a packet without payload answers nothing", got)
	}
}
