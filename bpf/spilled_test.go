package bpf_test

import (
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
)

const spiller = "10.1.0.7"

// A spill is a crowd in which the near bucket is full, and one more question waits in the far one.
type spill struct {
	*exchange
	near    []*dns.Msg
	spilled *dns.Msg
	timeout time.Duration
}

func newSpill(t *testing.T) *spill {
	t.Helper()
	s := &spill{exchange: newCrowd(t, 1, 1)}
	// Long for a test, and so short that what is older than it was not asked before the machine began.
	s.timeout = bpftest.Now(t) / 2
	s.Settings(func(set *bpf.DatapathSettings) { set.QueryTimeoutNs = uint64(s.timeout) })
	for i := range nearSlots {
		s.near = append(s.near, s.asks(spiller, i))
	}
	s.spilled = s.asks(spiller, nearSlots)
	s.expectWaiting(nearSlots, 1)
	return s
}

// askAgain asks the question that spilled.
func (s *spill) askAgain() { s.asks(spiller, nearSlots) }

// makeRoom has one of the near questions be answered.
func (s *spill) makeRoom() {
	s.t.Helper()
	if !s.answers(spiller, s.near[3], 3) {
		s.t.Fatal("a near question is not found")
	}
}

// expectOneAnswer has of two answers to the question that spilled one be learned.
func (s *spill) expectOneAnswer() {
	s.t.Helper()
	if !s.answers(spiller, s.spilled, nearSlots) {
		s.t.Error("the answer was not learned")
	}
	if got := s.becomes(spiller, s.spilled, nearSlots); got[bpf.DatapathCounterCOUNTER_DUPLICATE] != 1 {
		s.t.Errorf("a second answer counted as %v", got)
	}
}

func (s *spill) bucket(which uint32) (bucket bpf.DatapathQuestionBucket) {
	s.t.Helper()
	if err := s.Questions.Lookup(which, &bucket); err != nil {
		s.t.Fatal(err)
	}
	return bucket
}

// expectWaiting counts the questions that wait, or have expired, in the near and in the far bucket.
func (s *spill) expectWaiting(near, far int) {
	s.t.Helper()
	for which, want := range []int{near, far} {
		got := 0
		for _, state := range s.bucket(uint32(which)).State {
			if state != 0 && state&stateAnswered == 0 {
				got++
			}
		}
		if got != want {
			s.t.Errorf("%d questions wait in bucket %d, want %d", got, which, want)
		}
	}
}

// expectOneCopy has the question that spilled be nowhere but in the far bucket.
func (s *spill) expectOneCopy() {
	s.t.Helper()
	asker, copies := s.bucket(1).Slots[0].Asker, 0
	for which := range uint32(2) {
		for _, slot := range s.bucket(which).Slots {
			if slot.Asker == asker {
				copies++
			}
		}
	}
	if copies != 1 {
		s.t.Errorf("it is there %d times", copies)
	}
}

// age has so much time pass for what was asked.
func (s *spill) age(passed time.Duration) {
	s.t.Helper()
	for which := range uint32(2) {
		bucket := s.bucket(which)
		for i, state := range bucket.State {
			if state != 0 {
				bucket.State[i] = state - uint64(passed)>>stateTimeUnit<<stateTimeShift
			}
		}
		s.Put(s.Questions, which, bucket)
	}
}

// What has no room near is found all the same, whether there is room by then or not.
func TestSpilledQuestionsAreFound(t *testing.T) {
	e := newCrowd(t, 1, 4)
	var queries []*dns.Msg
	const asked = 16
	for i := range asked {
		queries = append(queries, e.asks(spiller, i))
	}
	if got := e.Counter(evictedIt); got != 0 {
		t.Fatalf("%d evictions", got)
	}
	for i := range asked {
		i = (i + nearSlots/2) % asked
		if !e.answers(spiller, queries[i], i) {
			t.Errorf("question %d of %d: its answer was not learned", i, asked)
		}
	}
}

// A question that spilled, and is asked again when there is room near, is renewed where it is: of two answers one
// succeeds.
func TestASpilledQuestionIsAskedAgain(t *testing.T) {
	s := newSpill(t)
	s.makeRoom()
	s.askAgain()
	s.expectOneCopy()
	s.expectOneAnswer()
	s.askAgain()
	s.expectOneCopy()
	s.expectOneAnswer()
}

// It is found for as long as it waits, not for as long as it would have, had it not been asked again.
func TestASpilledQuestionThatIsRenewed(t *testing.T) {
	s := newSpill(t)
	s.age(s.timeout * 6 / 10)
	s.askAgain()
	s.makeRoom()
	s.age(s.timeout * 6 / 10)
	s.askAgain() // by now it would have expired
	s.expectOneCopy()
	s.expectOneAnswer()
}

// When what spilled has expired, who asks does not look for it: the question is a near one again.
func TestWhatSpilledLongAgo(t *testing.T) {
	s := newSpill(t)
	s.age(s.timeout + time.Second)
	far := s.bucket(1)
	s.askAgain()
	if s.bucket(1) != far {
		t.Error("the far bucket was written to")
	}
	s.expectOneAnswer()
	if s.bucket(1) != far {
		t.Error("the far bucket was written to")
	}
}

// Without a spill nobody looks at far buckets.
func TestFarBucketsRest(t *testing.T) {
	s := newSpill(t)
	s.makeRoom()
	near, far := s.bucket(0), s.bucket(1)
	near.State[nearSlots] = 0 // the note
	s.Put(s.Questions, uint32(0), near)
	if got := s.becomes(spiller, s.spilled, nearSlots); got[bpf.DatapathCounterCOUNTER_NO_QUERY] != 1 {
		t.Errorf("an answer counted as %v", got)
	}
	s.askAgain()
	s.expectWaiting(nearSlots, 1)
	if s.bucket(1) != far {
		t.Error("the far bucket was written to")
	}
}

// An answer that comes too late for a question that spilled is told from one that nobody asked for.
func TestTooLateForWhatSpilled(t *testing.T) {
	s := newSpill(t)
	s.age(s.timeout + time.Second)
	if got := s.becomes(spiller, s.spilled, nearSlots); got[bpf.DatapathCounterCOUNTER_LATE] != 1 {
		t.Errorf("counted %v", got)
	}
	if got := s.becomes(spiller, s.spilled, nearSlots+1); got[bpf.DatapathCounterCOUNTER_NO_QUERY] != 1 {
		t.Errorf("of another port: counted %v", got)
	}
}

// Of many answers at once one succeeds, wherever the question is.
func TestOfManyAnswersOneSucceeds(t *testing.T) {
	s := newSpill(t)
	const workers, rounds = 4, 50
	for range rounds {
		s.ResetCounters()
		for _, q := range []struct {
			query *dns.Msg
			port  int
		}{{s.near[0], 0}, {s.spilled, nearSlots}} {
			s.asks(spiller, q.port)
			answer := s.response(pack(t, new(dns.Msg).SetReply(q.query)))
			var group sync.WaitGroup
			for range workers {
				group.Go(func() { s.Run(s.DnsResponse, answer) })
			}
			group.Wait()
		}
		if got := s.Counter(bpf.DatapathCounterCOUNTER_NO_ADDRESS); got != 2 {
			t.Fatalf("%d answers to two questions: %v", got, s.Counted())
		}
	}
}

// response is a message on its way to who asked last.
func (s *spill) response(message []byte) []byte {
	return bpftest.Datagram(s.resolver, s.client, message)
}

// Many CPUs ask more at once than there is room near: what is lost is counted.
func TestSpillsOfManyAtOnce(t *testing.T) {
	e := newCrowd(t, 1, 1)
	const workers, rounds, each = 4, 200, 3 // outstanding at once: less than near and far have room for
	var group sync.WaitGroup
	for worker := range workers {
		group.Go(func() {
			for round := range rounds {
				var answers [][]byte
				for i := range each {
					client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(worker), 7}), uint16(1024+each*round+i))
					query := new(dns.Msg).SetQuestion("x.example.com.", dns.TypeA)
					question, err := query.Pack()
					if err != nil {
						t.Error(err)
					}
					answer, err := new(dns.Msg).SetReply(query).Pack()
					if err != nil {
						t.Error(err)
					}
					e.Run(e.DnsQueryForwarded, bpftest.Datagram(client, e.resolver, question))
					answers = append(answers, bpftest.Datagram(e.resolver, client, answer))
				}
				for _, answer := range answers {
					e.Run(e.DnsResponse, answer)
				}
			}
		})
	}
	group.Wait()
	found, lost := e.Counter(bpf.DatapathCounterCOUNTER_NO_ADDRESS), e.Counter(evictedIt)
	if all := uint64(workers * rounds * each); found+lost < all || found > all {
		t.Errorf("of %d questions %d were found and %d were lost: %v", all, found, lost, e.Counted())
	}
}
