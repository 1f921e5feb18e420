package datapath

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/bpf"
)

// longList is a list of so many names, and of others.
func longList(count int, others ...string) []string {
	list := slices.Clone(others)
	for i := range count {
		list = append(list, fmt.Sprintf("n%d.long.test", i))
	}
	return list
}

const longEnough = 600 // names, for a list whose match set is a common one

func (f *fixture) cells(t *testing.T) []rawCell {
	t.Helper()
	cells := make([]rawCell, f.kernel.NameCells.MaxEntries())
	if err := readArray(f.kernel.NameCells, cells); err != nil {
		t.Fatal(err)
	}
	return cells
}

// TestRemovalWritesOneName: what leaves a long list costs that name, and none of those that stay. These are open all
// the while, and it is not.
func TestRemovalWritesOneName(t *testing.T) {
	f := newFixture(t)
	f.apply(t, hostRules(t, allow(longList(longEnough, "gone.test", "*.below.test")...)))
	f.apply(t, hostRules(t, allow(longList(longEnough, "gone.test", "*.below.test")...))) // both generations have it
	f.resolve(t, "gone.test", 3600, "gone.test. IN A "+rotated(0))
	f.resolve(t, "n7.long.test", 3600, "n7.long.test. IN A "+rotated(1))
	f.resolve(t, "n8.long.test", 3600, "n8.long.test. IN A "+rotated(2), "n8.long.test. IN A "+rotated(0))
	f.resolve(t, "x.below.test", 3600, "x.below.test. IN A "+rotated(3))
	f.resolve(t, "gone.test", 3600, "gone.test. IN A "+rotated(4))
	f.wantOpen(t, true, rotated(0), rotated(1), rotated(2), rotated(3), rotated(4))
	before := f.cells(t)
	f.apply(t, hostRules(t, allow(longList(longEnough, "*.below.test")...)))
	f.wantOpen(t, true, rotated(0), rotated(1), rotated(2), rotated(3)) // the first by another name
	f.wantOpen(t, false, rotated(4))
	var changed int
	for i, cell := range f.cells(t) {
		if cell != before[i] {
			changed++
		}
	}
	if changed != 1 {
		t.Errorf("%d cells were written, want that of the name alone", changed)
	}
	f.resolve(t, "gone.test", 3600, "gone.test. IN A "+rotated(5))
	f.resolve(t, "n9.long.test", 3600, "n9.long.test. IN A "+rotated(6))
	f.wantOpen(t, false, rotated(4), rotated(5))
	f.wantOpen(t, true, rotated(6))
	f.restart(t)
	f.wantOpen(t, true, rotated(0), rotated(1), rotated(2), rotated(3), rotated(6))
	f.apply(t, hostRules(t, allow(longList(longEnough, "*.below.test")...)))
	f.wantOpen(t, true, rotated(0), rotated(1), rotated(2), rotated(3), rotated(6))
	f.wantOpen(t, false, rotated(4), rotated(5))
	f.apply(t, hostRules(t, allow(longList(longEnough, "gone.test")...)))
	f.wantOpen(t, true, rotated(0), rotated(1), rotated(2), rotated(4), rotated(5), rotated(6))
	f.wantOpen(t, false, rotated(3))
}

// endsInASwitch is a context that ends once programs learn for the generation to come, and for that in force.
type endsInASwitch struct {
	context.Context
	t *testing.T
	f *fixture
}

func (c endsInASwitch) Done() <-chan struct{} {
	c.t.Helper()
	var state bpf.DatapathState
	if err := c.f.kernel.State.Lookup(uint32(0), &state); err != nil {
		c.t.Fatal(err)
	}
	if state.Active == state.Learning {
		return nil
	}
	over := make(chan struct{})
	close(over)
	return over
}

func (c endsInASwitch) Err() error {
	select {
	case <-c.Done():
		return context.Canceled
	default:
		return nil
	}
}

// TestChangeWaitsForProgramsOfBefore: a change that takes a match set from a name waits for programs that began before
// both generations were learned for; one that takes none does not. When the wait is given up, what was in force stays.
func TestChangeWaitsForProgramsOfBefore(t *testing.T) {
	f := newFixture(t)
	change := func(wait error, names ...string) {
		t.Helper()
		ctx := endsInASwitch{t.Context(), t, f}
		if err := f.Apply(ctx, hostRules(t, allow(names...))); !errors.Is(err, wait) {
			t.Errorf("change to %d names: %v, want %v", len(names), err, wait)
		}
	}
	f.apply(t, hostRules(t, allow(longList(longEnough, "gone.test")...)))
	f.resolve(t, "gone.test", 3600, "gone.test. IN A "+rotated(0))
	change(nil, longList(longEnough, "gone.test", "new.test")...)
	f.wantOpen(t, true, rotated(0))
	change(context.Canceled, longList(longEnough, "new.test")...)
	f.wantOpen(t, true, rotated(0))
	f.apply(t, hostRules(t, allow(longList(longEnough, "new.test")...)))
	f.wantOpen(t, false, rotated(0))
}

// TestRemovalClosesWhatTheAgentDoesNotKnow: what was learned by a pattern that left opens nothing, also where no agent
// ever hears of it: of answers that were lost with the ring buffer, or that are in no journal.
func TestRemovalClosesWhatTheAgentDoesNotKnow(t *testing.T) {
	whole := hostRules(t, allow(longList(longEnough, "gone.test")...))
	less := hostRules(t, allow(longList(longEnough)...))
	lose := func(t *testing.T, f *fixture) {
		for f.events.read() != nil { // as if there had been no room
		}
		f.events.release()
	}
	forget := func(t *testing.T, f *fixture) {
		f.drained(t)
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := RemoveJournal(f.cfg.StateDir); err != nil {
			t.Fatal(err)
		}
		f.open(t)
	}
	for what, unknown := range map[string]func(*testing.T, *fixture){
		"lost events": lose,
		"lost events, and a restart": func(t *testing.T, f *fixture) {
			lose(t, f)
			f.restart(t)
		},
		"no journal": forget,
		"no journal, and the list that it had": func(t *testing.T, f *fixture) {
			forget(t, f)
			f.apply(t, whole)
		},
		"unread events":                func(*testing.T, *fixture) {},
		"unread events, and a restart": func(t *testing.T, f *fixture) { f.restart(t) },
	} {
		t.Run(what, func(t *testing.T) {
			f := newFixture(t)
			f.apply(t, whole)
			f.resolve(t, "gone.test", 3600, "gone.test. IN A "+rotated(0))
			f.resolve(t, "n7.long.test", 3600, "n7.long.test. IN A "+rotated(1))
			f.wantOpen(t, true, rotated(0), rotated(1))
			unknown(t, f)
			f.apply(t, less)
			f.wantOpen(t, false, rotated(0))
			f.resolve(t, "n7.long.test", 3600, "n7.long.test. IN A "+rotated(1))
			f.wantOpen(t, true, rotated(1))
			f.drained(t)
			f.wantOpen(t, false, rotated(0))
			f.apply(t, whole)
			f.resolve(t, "gone.test", 3600, "gone.test. IN A "+rotated(0))
			f.wantOpen(t, true, rotated(0), rotated(1))
		})
	}
}

// TestAnswersDuringRemovals: patterns leave a list and come back while others of its names are resolved: each is open as
// soon as its answer is there, and stays so; what left is closed once that is in force, whenever it was resolved.
func TestAnswersDuringRemovals(t *testing.T) {
	const few = 1500 // addresses: they outlive the test
	f := newFixture(t)
	whole := hostRules(t, allow(longList(longEnough, "gone.test", "*.below.test")...))
	less := hostRules(t, allow(longList(longEnough, "*.below.test")...))
	f.apply(t, whole)
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	defer group.Wait()
	defer stop()
	group.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			name, address := fmt.Sprintf("n%d.long.test", i%longEnough), rotated(i%few)
			if i%2 == 0 {
				name = fmt.Sprintf("n%d.below.test", i%few)
			}
			f.resolve(t, name, 3600, fmt.Sprintf("%s. IN A %s", name, address))
			for _, at := range []int{i, i - 1, i / 2} {
				if at >= 0 && !f.opens(t, rotated(at%few)+":443") {
					t.Errorf("answer %d is not open after answer %d", at, i)
					stop()
				}
			}
		}
	})
	for i := range 10 {
		gone := netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}).String()
		f.resolveAs(t, uint16(60_000+i), "gone.test", "gone.test. IN A "+gone)
		f.wantOpen(t, true, gone)
		f.apply(t, less)
		f.wantOpen(t, false, gone)
		f.resolveAs(t, uint16(61_000+i), "gone.test", "gone.test. IN A "+gone)
		f.wantOpen(t, false, gone)
		f.apply(t, whole)
		f.wantOpen(t, true, gone)
	}
}

// TestDifferentialRemovals compares what is open with Explain while patterns of every form leave long lists and short
// ones, and come back, with answers before, between and behind, and restarts.
func TestDifferentialRemovals(t *testing.T) {
	var f *fixture
	cases := 0
	rapid.Check(t, func(r *rapid.T) {
		if cases%fixtureCases == 0 {
			f = renewFixture(t, f)
		}
		w := &removals{f: f, names: map[netip.Addr][]domain.Name{}, cases: cases}
		cases++
		f.apply(t, w.draw(t, r))
		for range rapid.IntRange(1, 3).Draw(r, "steps") {
			w.answer(t, r)
			if rapid.IntRange(0, 3).Draw(r, "restart") == 0 {
				f.restart(t)
			}
			rules := w.draw(t, r)
			f.apply(t, rules)
			w.compare(t, r, rules)
			w.answer(t, r)
			w.compare(t, r, rules)
		}
	})
}

// removals is a case: what lists are drawn from, and the names that its addresses have.
type removals struct {
	f     *fixture
	cases int
	names map[netip.Addr][]domain.Name
}

var (
	removalPatterns = []string{"a.test", "b.test", "www.a.test", "*.a.test", "*.test", "x*.a.test", "*.x*.b.test", "www.*.test", "x.y.a.test", "*", "xb.test"}
	removalNames    = []string{"a.test", "b.test", "www.a.test", "xa.a.test", "z.xa.b.test", "www.q.test", "x.y.a.test", "other.example", "n1.long.test", "n2.both.test", "xb.test"}
)

// draw draws a rule set of one list that is long, a set that shares many of its names, and a short list that denies.
func (w *removals) draw(t *testing.T, r *rapid.T) *ruleset.RuleSet {
	some := func(label string) (patterns []domain.Pattern) {
		for _, text := range rapid.SliceOfNDistinct(rapid.SampledFrom(removalPatterns), 0, 5, rapid.ID).Draw(r, label) {
			patterns = append(patterns, pattern(t, text))
		}
		return patterns
	}
	first, shared := some("list"), some("set")
	for i := range 300 {
		first = append(first, pattern(t, fmt.Sprintf("n%d.long.test", i)), pattern(t, fmt.Sprintf("n%d.both.test", i)))
		shared = append(shared, pattern(t, fmt.Sprintf("n%d.both.test", i)))
	}
	rules := ruleset.New([]ruleset.Policy{{
		Name: "policies/p", Workloads: []ruleset.Workload{{Host: true}},
		Rules: []ruleset.Rule{
			{Action: ruleset.Deny, Domains: append(some("denied"), pattern(t, "never.test"))},
			{Domains: first, Ports: []ruleset.Ports{{Protocol: ruleset.TCP, First: 443, Last: 443}}},
			{DomainSets: []string{"domainSets/s"}, Ports: []ruleset.Ports{{Protocol: ruleset.TCP, First: 80, Last: 80}}},
		},
	}})
	rules.DomainSets = []ruleset.DomainSet{ruleset.NewDomainSet("domainSets/s", shared)}
	return rules
}

// answer gives addresses names.
func (w *removals) answer(t *testing.T, r *rapid.T) {
	for range rapid.IntRange(0, 4).Draw(r, "answers") {
		name := rapid.SampledFrom(removalNames).Draw(r, "name")
		address := netip.AddrFrom4([4]byte{198, 18, byte(w.cases), byte(rapid.IntRange(0, 5).Draw(r, "address"))})
		w.f.resolve(t, name, 3600, fmt.Sprintf("%s. IN A %s", name, address))
		w.names[address] = append(w.names[address], parseName(t, name))
		if rapid.Bool().Draw(r, "heard of") {
			w.f.drained(t)
		}
	}
}

func (w *removals) compare(t *testing.T, r *rapid.T, rules *ruleset.RuleSet) {
	for address, names := range w.names {
		for _, port := range []uint16{80, 443} {
			to := netip.AddrPortFrom(address, port)
			e := rules.Explain(ruleset.Connection{Local: true, Source: testOrigin.Addr(), Destination: address, Protocol: ruleset.TCP, Port: port, Names: names})
			if got, want := w.f.opens(t, to.String()), e.Verdict == ruleset.Allow; got != want {
				r.Fatalf("%s, which has the names %v and match sets %v, should have %v: open %v, want %v", to, names, w.f.learned(t, address), w.f.lowered(names), got, want)
			}
		}
	}
}

// resolveAs is resolve beside one that runs at the same time, by an id of its own.
func (f *fixture) resolveAs(t testing.TB, id uint16, name string, records ...string) {
	t.Helper()
	other := &fixture{Datapath: f.Datapath, id: id}
	other.resolve(t, name, 3600, records...)
}
