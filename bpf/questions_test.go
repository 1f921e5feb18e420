package bpf_test

import (
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/miekg/dns"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
)

const (
	learnedIt = bpf.DatapathCounterCOUNTER_LEARNED
	evictedIt = bpf.DatapathCounterCOUNTER_QUERY_EVICTED
)

// Slots of a bucket of questions: one less in a near one, whose last state is a note.
const (
	farSlots  = len(bpf.DatapathQuestionBucket{}.State)
	nearSlots = farSlots - 1
)

// newCrowd is an exchange with room for so many buckets of questions.
func newCrowd(t *testing.T, near, far uint32) *exchange {
	t.Helper()
	e := &exchange{
		Datapath: bpftest.Load(t, 1024, func(spec *ebpf.CollectionSpec) { spec.Maps[bpf.DatapathMapQuestions].MaxEntries = near + far }),
		t:        t, client: netip.MustParseAddrPort("10.1.0.7:40000"), resolver: netip.MustParseAddrPort("10.0.0.53:53"),
	}
	e.Near(near)
	e.trust(e.resolver)
	e.Pattern(0, "example.com", 0, belowSet)
	// None expires while the test runs, on however slow a machine.
	e.Settings(func(s *bpf.DatapathSettings) { s.QueryTimeoutNs = uint64(time.Hour) })
	return e
}

// asks sends a question of a client, from a port and under an id of their own.
func (e *exchange) asks(client string, number int) *dns.Msg {
	e.t.Helper()
	e.client = netip.AddrPortFrom(netip.MustParseAddr(client), uint16(1024+number))
	query := new(dns.Msg).SetQuestion("x.example.com.", dns.TypeA)
	query.Id = uint16(number)
	e.send(pack(e.t, query))
	return query
}

// answers delivers the answer to such a question and reports whether it was learned.
func (e *exchange) answers(client string, query *dns.Msg, number int) bool {
	e.t.Helper()
	return e.becomes(client, query, number)[learnedIt] == 1
}

// becomes delivers it and gives what was counted.
func (e *exchange) becomes(client string, query *dns.Msg, number int) map[bpf.DatapathCounter]uint64 {
	e.t.Helper()
	e.client = netip.AddrPortFrom(netip.MustParseAddr(client), uint16(1024+number))
	return e.deliver(pack(e.t, reply(e.t, query, "x.example.com. 60 IN A 192.0.2.1")))
}

// Each question finds a place while no more are outstanding than there is room for: what was answered, or
// has expired, takes none.
func TestAnsweredQuestionsTakeNoRoom(t *testing.T) {
	e := newCrowd(t, 1, 2)
	for i := range 200 {
		if query := e.asks("10.1.0.7", i); !e.answers("10.1.0.7", query, i) {
			t.Fatalf("question %d: its answer was not learned", i)
		}
	}
	e.Settings(func(s *bpf.DatapathSettings) { s.QueryTimeoutNs = 1 })
	e.ResetCounters()
	for i := range 200 {
		e.asks("10.1.0.7", i)
	}
	if got := e.Counter(evictedIt); got != 0 {
		t.Errorf("%d questions gave way although all others had expired", got)
	}
}

// Over the limit the oldest goes first, of those that spilled, and is counted. All share the places of a near and
// a far bucket here.
func TestTheOldestQuestionGoesFirst(t *testing.T) {
	e := newCrowd(t, 1, 1)
	const asked = 20
	var queries []*dns.Msg
	for i := range asked {
		queries = append(queries, e.asks("10.1.0.7", i))
	}
	if got, want := e.Counter(evictedIt), uint64(asked-nearSlots-farSlots); got != want {
		t.Errorf("%d evictions, want %d", got, want)
	}
	for i, query := range queries {
		if got, want := e.answers("10.1.0.7", query, i), i < nearSlots || i >= asked-farSlots; got != want {
			t.Errorf("question %d of %d: learned %v, want %v", i, asked, got, want)
		}
	}
}

// A client that asks without end pushes out its own questions, not those of others.
func TestAFloodPushesOutItsOwn(t *testing.T) {
	e := newCrowd(t, 8, 56)
	const others = 40
	var queries []*dns.Msg
	client := func(i int) string { return netip.AddrFrom4([4]byte{10, 2, 0, byte(i)}).String() }
	for i := range others {
		queries = append(queries, e.asks(client(i), i))
	}
	for i := range 20_000 {
		e.asks("10.1.0.7", i)
	}
	if got := e.Counter(evictedIt); got < 19_000 {
		t.Errorf("%d evictions counted", got)
	}
	for i, query := range queries {
		if !e.answers(client(i), query, i) {
			t.Errorf("the question of %s was pushed out", client(i))
		}
	}
}

// A question that is asked again takes no second place, and its time begins anew.
func TestAskingAgainRenews(t *testing.T) {
	e := newCrowd(t, 1, 1)
	first := e.asks("10.1.0.7", 0)
	for i := range 100 {
		e.asks("10.1.0.7", 0)
		e.asks("10.1.0.7", 1+i%7)
	}
	if got := e.Counter(evictedIt); got != 0 {
		t.Errorf("%d evictions", got)
	}
	if !e.answers("10.1.0.7", first, 0) {
		t.Error("the answer was not learned")
	}
}

// Many CPUs ask and are answered at once: each answer finds its question.
func TestNoQuestionIsLost(t *testing.T) {
	d := bpftest.Load(t, 1024)
	e := &exchange{Datapath: d, t: t, client: source, resolver: source}
	e.trust(e.resolver)
	e.Pattern(0, "example.com", 0, belowSet)
	const workers, questions = 4, 200
	var group sync.WaitGroup
	for worker := range workers {
		group.Go(func() {
			for i := range questions {
				client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(worker), 7}), uint16(1024+i))
				query := new(dns.Msg).SetQuestion("x.example.com.", dns.TypeA)
				answer := new(dns.Msg).SetReply(query)
				question, err := query.Pack()
				if err != nil {
					t.Error(err)
				}
				response, err := answer.Pack()
				if err != nil {
					t.Error(err)
				}
				d.Run(d.DnsQueryForwarded, bpftest.Datagram(client, source, question))
				d.Run(d.DnsResponse, bpftest.Datagram(source, client, response))
			}
		})
	}
	group.Wait()
	got := d.Counted()
	if got[bpf.DatapathCounterCOUNTER_NO_ADDRESS] != workers*questions || got[evictedIt] != 0 {
		t.Errorf("counted %v, want %d answers without an address", got, workers*questions)
	}
}

// The default takes the questions that it promises: none gives way before.
func TestLimitOfQuestions(t *testing.T) {
	const limit = 1024
	e := newCrowd(t, 1, limit*5/4/8+1)
	for i := range limit {
		e.asks(netip.AddrFrom4([4]byte{10, 1, byte(i / 32), 7}).String(), i)
	}
	if got := e.Counter(evictedIt); got != 0 {
		t.Errorf("%d of %d outstanding questions gave way", got, limit)
	}
}
