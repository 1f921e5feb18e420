package bpf_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
)

// A transport takes messages to the programs, over one way by which the kernel shows them.
type transport interface {
	// clients are the addresses that ask, and are answered.
	clients() []netip.AddrPort
	// ask has a client send a query, answer the resolver send a response. The programs have run when they
	// return; the verdict is what they gave.
	ask(client int, message []byte, tells int) (verdict uint32)
	answer(client int, message []byte, tells int) (verdict uint32)
}

// A comparison runs scripts on the programs and by the oracle, and finds where they differ. Between scripts
// nothing is asked or known.
type comparison struct {
	t         testing.TB
	datapath  *bpftest.Datapath
	byDefault transport
	large     transport // for messages that a test run does not take
	streams   *segments
	executed  int // responses
	reasons   [bpf.DatapathCounterCOUNTER_MAX]int

	counts  *ebpf.Memory
	answers *ebpf.Memory

	script      *script
	transport   transport
	layings     [2]*laying
	settings    string // what is laid, as text
	counted     counted
	outstanding outstanding
	told        map[string]*telling           // by canonical name and type of the question
	learned     map[netip.Addr]map[use]window // expiries in ticks
	matches     map[string][]use              // by canonical name
	faults      []string
}

// A use is a pattern of a generation, which may match an address's name.
type use struct {
	generation int
	pattern    domain.Pattern
}

// A window is between which ticks a time is.
type window struct{ from, to uint64 }

// A telling is what the agent was told last about a question.
type telling struct {
	content  string
	reported window
}

// Capacities are small, since every script leaves its maps empty, which takes a look at each bucket.
const (
	comparedCells   = 4096
	comparedBuckets = 64
	comparedAnswers = 4096 // buckets: no script has so many names in one that an answer gives way
)

func newComparison(t testing.TB) *comparison {
	t.Helper()
	c := &comparison{t: t, datapath: bpftest.Load(t, 1024, func(spec *ebpf.CollectionSpec) {
		spec.Maps[bpf.DatapathMapMappings].MaxEntries = comparedCells
		spec.Maps[bpf.DatapathMapQuestions].MaxEntries = comparedBuckets
		spec.Maps[bpf.DatapathMapAnswers].MaxEntries = comparedAnswers
		spec.Maps[bpf.DatapathMapAnswers].Flags |= unix.BPF_F_MMAPABLE
		// Of one CPU, which can be mapped into memory.
		spec.Maps[bpf.DatapathMapCounters].Type = ebpf.Array
		spec.Maps[bpf.DatapathMapCounters].Flags |= unix.BPF_F_MMAPABLE
	})}
	var err error
	if c.counts, err = c.datapath.Counters.Memory(); err != nil {
		t.Fatalf("map the counters into memory: %v", err)
	}
	if c.answers, err = c.datapath.DatapathMaps.Answers.Memory(); err != nil {
		t.Fatalf("map the answers into memory: %v", err)
	}
	c.byDefault = newTestRuns(t, c.datapath)
	c.streams = newSegments(c.datapath, c.byDefault.clients())
	c.counted = c.counters()
	return c
}

// reportTo has another test hear of differences.
func (c *comparison) reportTo(t testing.TB) {
	c.t = t
	c.datapath.ReportTo(t)
}

func (c *comparison) fault(format string, args ...any) {
	c.faults = append(c.faults, fmt.Sprintf(format, args...))
}

// compare runs a script, and gives the differences.
func (c *comparison) compare(s *script) []string {
	c.t.Helper()
	c.faults, c.script = nil, s
	c.outstanding, c.told, c.learned = outstanding{}, map[string]*telling{}, map[netip.Addr]map[use]window{}
	c.lay()
	c.transport = c.transportOf(s)
	for i, step := range s.steps {
		if c.transport != c.byDefault {
			step.tells = 0 // the kernel tells the truth
		}
		before := len(c.faults)
		c.step(step)
		for at := before; at < len(c.faults); at++ {
			c.faults[at] = fmt.Sprintf("step %d: %s", i, c.faults[at])
		}
	}
	c.compareMappings()
	c.compareQueries()
	c.forgetAnswers()
	return c.faults
}

// transportOf gives the way by which a script's messages come.
func (c *comparison) transportOf(s *script) transport {
	if s.tcp {
		c.streams.begin()
		return c.streams
	}
	for _, step := range s.steps {
		if len(step.message) > testRunBytes {
			return c.largeTransport()
		}
	}
	return c.byDefault
}

func (c *comparison) largeTransport() transport {
	if c.large == nil {
		c.large = newLoopback(c.t, c.datapath, func() uint64 { return responses(c.counters()) })
	}
	return c.large
}

// lay brings settings and patterns to what the script says.
func (c *comparison) lay() {
	head := *c.script
	head.steps = nil
	text := head.String()
	if text == c.settings {
		return
	}
	c.settings, c.matches = text, map[string][]use{}
	c.datapath.ForgetNames()
	for generation := range c.layings {
		c.layings[generation] = lay(c.datapath, uint32(generation), uint32(1+1000*generation), head.patterns[generation])
	}
	c.datapath.SetState(head.active, head.learning)
	c.datapath.Settings(func(s *bpf.DatapathSettings) {
		s.AddressesPerName = uint16(head.limit)
		s.MinTtlNs, s.MaxTtlNs, s.TtlGraceNs = uint64(head.minTTL), uint64(head.maxTTL), uint64(head.grace)
	})
}

func (c *comparison) step(s step) {
	switch s.verb {
	case ask:
		c.ask(s)
	case answer:
		c.answer(s)
	case age:
		c.age(s.passed)
	}
}

// told is how many bytes of a message the UDP header tells, and whether it can be so many.
func (s step) told() (message []byte, ok bool) {
	bytes := len(s.message) + s.tells
	if bytes < 0 || bytes > len(s.message) {
		return nil, false
	}
	return s.message[:bytes], true
}

func (c *comparison) ask(s step) {
	if verdict := c.transport.ask(s.client, s.message, s.tells); verdict != 0 {
		c.fault("the query gave %d", verdict)
	}
	want, question := bpf.DatapathCounterCOUNTER_QUERY_MALFORMED, ""
	if message, ok := s.told(); ok {
		question = oracle{c.t, message}.asked()
	}
	if question != "" {
		want = bpf.DatapathCounterCOUNTER_QUERY
		c.outstanding.ask(outstandingKey{s.client, binary.BigEndian.Uint16(s.message)}, question)
	}
	c.compareCounters(map[bpf.DatapathCounter]uint64{want: 1})
}

// age rewinds what was asked, as if time had passed.
func (c *comparison) age(passed time.Duration) {
	c.outstanding.pass(passed)
	c.eachBucket(func(bucket *bpf.DatapathQuestionBucket) {
		for i, state := range bucket.State {
			if state != 0 {
				bucket.State[i] = state - uint64(passed)>>stateTimeUnit<<stateTimeShift
			}
		}
	})
}

// When a question was asked, in its state: above the lowest bits, in units of so many times doubled
// nanoseconds. The lowest bit says that it was answered.
const (
	stateTimeShift = 20
	stateTimeUnit  = 14
	stateAnswered  = 1
)

// eachBucket changes every bucket of questions.
func (c *comparison) eachBucket(change func(*bpf.DatapathQuestionBucket)) {
	keys, values := make([]uint32, comparedBuckets), make([]bpf.DatapathQuestionBucket, comparedBuckets)
	var cursor ebpf.MapBatchCursor
	if n, err := c.datapath.Questions.BatchLookup(&cursor, keys, values, nil); n != comparedBuckets {
		c.t.Fatalf("look up questions: %d buckets of %d, %v", n, comparedBuckets, err)
	}
	for i := range values {
		change(&values[i])
	}
	if _, err := c.datapath.Questions.BatchUpdate(keys, values, nil); err != nil {
		c.t.Fatalf("write questions: %v", err)
	}
}

func (c *comparison) answer(s step) {
	c.executed++
	before := bpftest.Now(c.t)
	if verdict := c.transport.answer(s.client, s.message, s.tells); verdict != 0 {
		c.fault("the response gave %d", verdict)
	}
	after := bpftest.Now(c.t)
	expected, key := c.judge(s)
	events := c.datapath.RawEvents()
	extra := map[bpf.DatapathCounter]uint64{}
	if len(expected.owners) == 0 && len(events) > 0 {
		c.fault("%d events, want none", len(events))
	}
	if expected.question != "" && slices.Contains(expected.counters, bpf.DatapathCounterCOUNTER_UNMATCHED) {
		expected.counters = only(bpf.DatapathCounterCOUNTER_UNMATCHED)
		c.learn(expected, before, after, events, s.client)
		if c.matched(expected.chain) {
			expected.counters = only(bpf.DatapathCounterCOUNTER_LEARNED)
		}
	}
	if expected.special > 0 {
		extra[bpf.DatapathCounterCOUNTER_SPECIAL_ADDRESS] = expected.special
	}
	if expected.over > 0 {
		extra[bpf.DatapathCounterCOUNTER_ADDRESSES_OVER_LIMIT] = expected.over
	}
	if reason := c.compareCounters(extra, expected.counters...); expected.question != "" && reason != bpf.DatapathCounterCOUNTER_MALFORMED {
		c.outstanding.use(key, expected.question)
	}
}

// judge gives what a response must lead to. Its question is empty unless it is an answer.
func (c *comparison) judge(s step) (reading, outstandingKey) {
	message, ok := s.told()
	if !ok {
		return reading{counters: only(bpf.DatapathCounterCOUNTER_MALFORMED)}, outstandingKey{}
	}
	r := oracle{c.t, message}.read(c.script.limit)
	if r.early != nil {
		return reading{counters: r.early}, outstandingKey{}
	}
	key := outstandingKey{s.client, binary.BigEndian.Uint16(message)}
	if reason := c.outstanding.judge(key, r.question, bpftest.QueryTimeout); reason != nil {
		return reading{counters: reason}, key
	}
	return r, key
}

// uses gives the patterns of the generations that are learned for that match a name.
func (c *comparison) uses(name string) []use {
	if known, ok := c.matches[name]; ok {
		return known
	}
	parsed, err := domain.FromWire([]byte(name))
	if err != nil {
		c.t.Fatalf("name %x: %v", name, err)
	}
	uses := []use{}
	for generation, patterns := range c.script.patterns {
		for _, p := range patterns {
			if c.learns(generation) && p.Match(parsed) {
				uses = append(uses, use{generation, p})
			}
		}
	}
	c.matches[name] = uses
	return uses
}

func (c *comparison) learns(generation int) bool {
	return uint32(generation) == c.script.active || uint32(generation) == c.script.learning
}

func (c *comparison) matched(chain []string) bool {
	return slices.ContainsFunc(chain, func(name string) bool { return len(c.uses(name)) > 0 })
}
