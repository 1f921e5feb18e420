package datapath

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netns"
	"pgregory.net/rapid"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
	"github.com/nameward/nameward/dataplane/enforce"
	"github.com/nameward/nameward/dataplane/lower"
)

var (
	testServer = netip.MustParseAddrPort("192.0.2.99:7443")
	testLinks  = []string{"eth0", "eth1", "eth12", "veth7"}
)

// A world is what connections of one case come from and lead to: addresses that nothing was learned of
// before, and who may open them.
type world struct {
	sources      []netip.Addr
	destinations []netip.Addr
	names        map[netip.Addr][]domain.Name // live, of the destinations
	links        map[string]uint32
}

// TestDifferentialVerdicts compares verdicts of the programs, on the maps that the agent fills, with
// Explain, and refused questions with Refuses, on random rule sets, mappings and packets. More of them run
// with `make differential`.
func TestDifferentialVerdicts(t *testing.T) {
	bpftest.RequirePrivileged(t)
	runtime.LockOSThread() // never unlocked: the namespace ends with the thread
	namespace, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer namespace.Close() //nolint:errcheck // ends with the test
	links := map[string]uint32{"lo": 1}
	for _, name := range testLinks {
		links[name] = addLink(t, name)
	}
	var f *fixture
	next, packets, denied := uint32(0), 0, 0
	inCells, inTrie := 0, 0
	rapid.Check(t, func(r *rapid.T) {
		w := &world{links: links, names: map[netip.Addr][]domain.Name{}}
		if next%fixtureCases == 0 {
			f = renewFixture(t, f)
		}
		w.draw(r, &next)
		rules := w.drawRules(r)
		late := rapid.SampledFrom(w.destinations).Draw(r, "late")
		for _, destination := range w.destinations {
			if destination != late {
				f.learnNames(t, r, w, destination)
			}
		}
		switch err := f.Apply(t.Context(), rules); {
		case errors.Is(err, enforce.ErrFull):
			return // as it should be refused; the next may have fewer rules
		case err != nil:
			t.Fatalf("apply: %v", err)
		}
		switch held := f.held[f.active]; {
		case len(held.sources) > 0:
			inTrie++
		case len(held.hosts) > 0:
			inCells++
		}
		f.learnNames(t, r, w, late)
		for range 60 {
			p := w.drawPacket(r)
			packets++
			if f.compareVerdict(t, r, rules, p) {
				denied++
			}
		}
		for range 20 {
			f.compareRefusal(r, rules, w)
		}
	})
	t.Logf("%d packets, of which %d were denied; sources %d times in cells alone and %d times in the trie too", packets, denied, inCells, inTrie)
	if denied == 0 || denied == packets {
		t.Errorf("%d of %d packets were denied", denied, packets)
	}
	if inCells == 0 || inTrie == 0 {
		t.Error("sources were always laid out in one way")
	}
}

// fixtureCases share a datapath. All addresses that were learned get the match sets of all rule sets that
// come while they live: after too many, the first would have to give way.
const fixtureCases = 200

func renewFixture(t *testing.T, old *fixture) *fixture {
	t.Helper()
	if old != nil {
		if err := old.Close(); err != nil {
			t.Fatal(err)
		}
	}
	f := newFixture(t, func(cfg *Config) { cfg.MaxMappings = 1 << 16 })
	if err := f.SetEndpoints([]netip.AddrPort{testResolver}, []netip.AddrPort{testServer}); err != nil {
		t.Fatal(err)
	}
	return f
}

// learnNames has the resolver tell of an address by all of its names, as a chain or one by one. Names that
// the rules do not let be asked are none of its names.
func (f *fixture) learnNames(t testing.TB, r *rapid.T, w *world, address netip.Addr) {
	t.Helper()
	names := w.names[address]
	w.names[address] = nil
	if len(names) > 1 && rapid.Bool().Draw(r, "chain") {
		if f.learnChain(t, names, address) {
			w.names[address] = names
		}
		return
	}
	for _, name := range names {
		if f.learnChain(t, []domain.Name{name}, address) {
			w.names[address] = append(w.names[address], name)
		}
	}
}

// learnChain has the resolver answer a question for the first name with aliases and an address of the last,
// unless the question is refused.
func (f *fixture) learnChain(t testing.TB, names []domain.Name, address netip.Addr) bool {
	t.Helper()
	f.id++
	kind := map[bool]byte{true: 1, false: 28}[address.Is4()]
	header := []byte{byte(f.id >> 8), byte(f.id), 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	question := slices.Concat(header, names[0].Wire(), []byte{0, kind, 0, 1})
	if f.run(t, bpf.DatapathProgDnsQueryForwarded, bpftest.Datagram(testClient, testResolver, question)) != 0 {
		return false
	}
	message := slices.Clone(question)
	message[2], message[7] = 0x80, byte(len(names))
	record := func(owner domain.Name, kind byte, data []byte) {
		message = slices.Concat(message, owner.Wire(), []byte{0, kind, 0, 1, 0, 0, 1, 0, 0, byte(len(data))}, data)
	}
	for i, target := range names[1:] {
		record(names[i], 5, target.Wire())
	}
	record(names[len(names)-1], kind, address.AsSlice())
	f.run(t, bpf.DatapathProgDnsResponse, bpftest.Datagram(testResolver, testClient, message))
	return true
}

// verdicts counts the packets that the programs judged, in three ways.
func (f *fixture) verdicts(r *rapid.T) (counts [3]uint64) {
	for i, counter := range []bpf.DatapathCounter{
		bpf.DatapathCounterCOUNTER_VERDICT_ALLOW, bpf.DatapathCounterCOUNTER_VERDICT_DENY, bpf.DatapathCounterCOUNTER_VERDICT_AUDIT,
	} {
		var err error
		if counts[i], err = f.kernel.counter(counter); err != nil {
			r.Fatal(err)
		}
	}
	return counts
}

// compareVerdict judges a packet in both ways, and reports whether it was denied.
func (f *fixture) compareVerdict(t testing.TB, r *rapid.T, rules *ruleset.RuleSet, p judgedPacket) bool {
	e := rules.Explain(p.Connection)
	denied := e.Enforced && (e.Verdict == ruleset.Deny && !p.always || p.unreadable)
	audited := !denied && e.Audited && (e.AuditVerdict == ruleset.Deny && !p.always || p.unreadable)
	var want [3]uint64
	switch {
	case denied:
		want[1] = 1
	case audited:
		want[2] = 1
	case e.Enforced || e.Audited:
		want[0] = 1
	}
	before := f.verdicts(r)
	got := f.judge(r, p)
	after := f.verdicts(r)
	for i := range after {
		after[i] -= before[i]
	}
	if (got != 0) != denied || got > 1 || after != want {
		counters, _ := f.Counters()
		r.Fatalf("%+v, which has match sets %v of %v; counted %v\n%x\nunder %.3000s\ngave %d, counted %v; want denied %v, counted %v (rule %d of %q)", p.Connection, f.learned(t, p.Destination), f.lowered(p.Names), counters, p.bytes, fmt.Sprintf("%+v", rules), got, after, denied, want, e.Rule, e.Policy)
	}
	return denied
}

// lowered gives the match sets that names should have.
func (f *fixture) lowered(names []domain.Name) (sets []lower.MatchSet) {
	for _, name := range names {
		sets = append(sets, f.lowering.Match(name)...)
	}
	return sets
}

func (f *fixture) judge(r *rapid.T, p judgedPacket) uint32 {
	program := bpf.DatapathProgEgressForwarded
	if p.Local {
		program = bpf.DatapathProgEgressLocal
	}
	return f.runFrom(r, program, p.link, p.bytes)
}

func (f *fixture) runFrom(r *rapid.T, program string, link uint32, packet []byte) uint32 {
	options := &ebpf.RunOptions{Data: packet, Repeat: 1}
	if link > 0 {
		options.Context = socketBuffer{Ifindex: link}
	}
	verdict, err := f.kernel.programs[program].Run(options)
	if err != nil {
		r.Fatalf("run %s: %v", program, err)
	}
	return verdict
}

// compareRefusal asks for a name in both ways.
func (f *fixture) compareRefusal(r *rapid.T, rules *ruleset.RuleSet, w *world) {
	p := w.drawPacket(r)
	name, err := domain.FromWire(drawWire(r))
	if err != nil {
		r.Fatal(err)
	}
	f.id++
	question := slices.Concat([]byte{byte(f.id >> 8), byte(f.id), 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, name.Wire(), []byte{0, 1, 0, 1})
	p.Destination = testResolver.Addr()
	p.Source = rapid.SampledFrom(w.sourcesLike(p.Destination)).Draw(r, "client")
	packet := bpftest.Datagram(netip.AddrPortFrom(p.Source, uint16(rand.Uint32())), testResolver, question)
	refusal := rules.Refuses(p.Connection, name)
	audited := f.count(r, bpf.DatapathCounterCOUNTER_QUERY_AUDIT)
	refused := f.count(r, bpf.DatapathCounterCOUNTER_QUERY_REFUSED)
	program := bpf.DatapathProgDnsQueryForwarded
	if p.Local {
		program = bpf.DatapathProgDnsQueryLocal
	}
	got := f.runFrom(r, program, p.link, packet)
	audited = f.count(r, bpf.DatapathCounterCOUNTER_QUERY_AUDIT) - audited
	refused = f.count(r, bpf.DatapathCounterCOUNTER_QUERY_REFUSED) - refused
	wantAudited := refusal.AuditRefused && !refusal.Refused
	if (got != 0) != refusal.Refused || (refused == 1) != refusal.Refused || (audited == 1) != wantAudited {
		r.Fatalf("question for %s of %+v under %+v: gave %d, counted %d refused, %d audited; want %+v", name, p.Connection, rules, got, refused, audited, refusal)
	}
}

func (f *fixture) count(r *rapid.T, counter bpf.DatapathCounter) uint64 {
	value, err := f.kernel.counter(counter)
	if err != nil {
		r.Fatal(err)
	}
	return value
}
