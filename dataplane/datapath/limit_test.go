package datapath

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/nameward/nameward/bpf"
)

// rotate resolves a name to one address after the other.
func (f *fixture) rotate(t *testing.T, name string, first, count int) {
	t.Helper()
	for i := first; i < first+count; i++ {
		f.resolve(t, name, 3600, fmt.Sprintf("%s. IN A %s", name, rotated(i)))
	}
	f.drained(t)
}

func rotated(i int) string { return fmt.Sprintf("198.18.%d.%d", i>>8, i&255) }

// drained takes in what the kernel told.
func (f *fixture) drained(t *testing.T) {
	t.Helper()
	if err := f.locked(f.drain); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) wantOpen(t *testing.T, want bool, addresses ...string) {
	t.Helper()
	for _, address := range addresses {
		if got := f.opens(t, address+":443"); got != want {
			t.Errorf("%s: open %v, want %v", address, got, want)
		}
	}
}

// TestTheOldestAddressOfANameIsShut: over the limit the oldest address stops being open, and is counted;
// those that another name has stay open, and those of other names do not count.
func TestTheOldestAddressOfANameIsShut(t *testing.T) {
	f := newFixture(t, func(cfg *Config) { cfg.MaxAddressesPerName = 5 })
	f.apply(t, hostRules(t, allow("*.example.com")))
	for i := range 4 {
		f.resolve(t, fmt.Sprintf("other%d.example.com", i), 3600, fmt.Sprintf("other%d.example.com. IN A %s", i, rotated(i)))
	}
	f.rotate(t, "cdn.example.com", 2, 10) // 2 to 11, of which 7 to 11 are the newest
	f.wantOpen(t, true, rotated(0), rotated(1), rotated(2), rotated(3), rotated(7), rotated(11))
	f.wantOpen(t, false, rotated(4), rotated(5), rotated(6))
	if got := f.counter(t, "addresses_evicted"); got != 5 {
		t.Errorf("counted %d, want 5", got)
	}
	// Asking again opens it again, before the agent hears of it.
	f.resolve(t, "cdn.example.com", 3600, fmt.Sprintf("cdn.example.com. IN A %s", rotated(4)))
	f.wantOpen(t, true, rotated(4))
	f.drained(t)
	f.wantOpen(t, true, rotated(4))
	f.wantOpen(t, false, rotated(7))
	f.restart(t)
	f.apply(t, hostRules(t, allow("*.example.com")))
	f.wantOpen(t, true, rotated(4), rotated(8), rotated(11), rotated(2))
	f.wantOpen(t, false, rotated(5), rotated(7))
}

// TestAnAnswerIsKeptWhole: addresses of one answer, as many as a name may have, push out what came before,
// and never each other; what is more than that is not learned: the first stay.
func TestAnAnswerIsKeptWhole(t *testing.T) {
	f := newFixture(t, func(cfg *Config) { cfg.MaxAddressesPerName = 5 })
	f.apply(t, hostRules(t, allow("*.example.com")))
	f.rotate(t, "cdn.example.com", 0, 5)
	var records []string
	for i := 10; i < 17; i++ {
		records = append(records, "cdn.example.com. IN A "+rotated(i))
	}
	f.resolve(t, "cdn.example.com", 1, records...) // expires before all others
	f.drained(t)
	f.wantOpen(t, true, rotated(10), rotated(11), rotated(12), rotated(13), rotated(14))
	f.wantOpen(t, false, rotated(0), rotated(4), rotated(15), rotated(16))
	if got := f.counter(t, "addresses_over_limit"); got != 2 {
		t.Errorf("not learned: %d, want 2", got)
	}
}

// TestProlongedAddressIsShut: the kernel prolongs an answer without an event; it gives way all the same.
func TestProlongedAddressIsShut(t *testing.T) {
	f := newFixture(t, func(cfg *Config) { cfg.MaxAddressesPerName = 2 })
	f.apply(t, hostRules(t, allow("*.example.com")))
	f.resolve(t, "cdn.example.com", 3600, "cdn.example.com. IN A "+rotated(0))
	f.resolve(t, "cdn.example.com", 3600+900, "cdn.example.com. IN A "+rotated(0)) // less than half a life longer
	f.rotate(t, "cdn.example.com", 1, 2)
	f.wantOpen(t, false, rotated(0))
	f.wantOpen(t, true, rotated(1), rotated(2))
}

// TestWhatWasLearnedMeanwhileStaysOpen: another name gets the address at the moment at which it is shut for
// the first.
func TestWhatWasLearnedMeanwhileStaysOpen(t *testing.T) {
	f := newFixture(t, func(cfg *Config) { cfg.MaxAddressesPerName = 1 })
	f.apply(t, hostRules(t, allow("*.example.com")))
	f.rotate(t, "cdn.example.com", 0, 1)
	f.resolve(t, "cdn.example.com", 3600, "cdn.example.com. IN A "+rotated(1))
	if err := f.locked(func() error {
		clock, err := readClock()
		if err != nil {
			return err
		}
		answers, _ := f.readBatch(f.events, f.events.next+uint64(f.events.available()), clock)
		if err := f.take(answers, clock); err != nil {
			return err
		}
		// Between the events that were read and the door that is shut.
		f.resolve(t, "new.example.com", 60, "new.example.com. IN A "+rotated(0))
		return f.dropOverdue()
	}); err != nil {
		t.Fatal(err)
	}
	f.drained(t)
	f.wantOpen(t, true, rotated(0), rotated(1))
}

// TestRemovedPatternsFillNothing: a selector that loses a pattern goes on under a new id, again and again;
// the addresses of the other names keep the room that they had.
func TestRemovedPatternsFillNothing(t *testing.T) {
	f := newFixture(t)
	const names, renewals = 1000, 40
	list := func(patterns int) []string {
		all := []string{"*.example.com"}
		for i := range patterns {
			all = append(all, fmt.Sprintf("n%d.other.test", i))
		}
		return all
	}
	f.apply(t, hostRules(t, allow(list(renewals)...)))
	for i := range names {
		f.resolve(t, fmt.Sprintf("n%d.example.com", i), 3600, fmt.Sprintf("n%d.example.com. IN A %s", i, rotated(i)))
	}
	for i := range renewals {
		f.apply(t, hostRules(t, allow(list(renewals-1-i)...)))
	}
	if got := f.pages(t); got != names {
		t.Errorf("%d entries for %d addresses", got, names)
	}
	for _, counter := range []string{"mappings_full", "mapping_slots_evicted", "mappings_evicted"} {
		if got := f.counter(t, counter); got != 0 {
			t.Errorf("%s: %d", counter, got)
		}
	}
	f.wantOpen(t, true, rotated(0), rotated(names/2), rotated(names-1))
	if got, want := f.live(t, rotated(7)), 2; got > want {
		t.Errorf("%d match sets are live, want %d at most", got, want)
	}
	f.switched = f.switched.Add(-2 * settled) // as if that time had passed
	if err := f.locked(f.forgetSettled); err != nil {
		t.Fatal(err)
	}
	if got := f.live(t, rotated(7)); got != 1 {
		t.Errorf("%d match sets are live after a while, want 1", got)
	}
	f.wantOpen(t, true, rotated(7))
}

// live is how many match sets of an address have not expired.
func (f *fixture) live(t *testing.T, a string) (live int) {
	t.Helper()
	clock, err := readClock()
	if err != nil {
		t.Fatal(err)
	}
	for _, slot := range f.slotsOf(t, netip.MustParseAddr(a)) {
		if slot>>matchSetBits > clock.toTicks(clock.now) {
			live++
		}
	}
	return live
}

// TestReplacedMatchSetComesBack: what was forgotten is there again when a rule set gives the name the same
// match set as before.
func TestReplacedMatchSetComesBack(t *testing.T) {
	f := newFixture(t)
	one := hostRules(t, allow("www.example.com"))
	two := hostRules(t, allow("www.example.com"), allow("www.example.com", "x.test"))
	f.apply(t, one)
	f.resolve(t, "www.example.com", 3600, "www.example.com. IN A "+rotated(0))
	for range 5 {
		f.apply(t, two)
		f.wantOpen(t, true, rotated(0))
		f.apply(t, one)
		f.wantOpen(t, true, rotated(0))
	}
	f.apply(t, hostRules(t, allow("x.test")))
	f.wantOpen(t, false, rotated(0))
	f.apply(t, one)
	f.wantOpen(t, true, rotated(0))
}

// TestLeftMatchSetsAreForgotten: the process ended between the switch and the forgetting.
func TestLeftMatchSetsAreForgotten(t *testing.T) {
	f := newFixture(t)
	f.apply(t, hostRules(t, allow("*.example.com", "a.test")))
	f.resolve(t, "www.example.com", 3600, "www.example.com. IN A "+rotated(0))
	last := hostRules(t, allow("*.example.com"))
	f.apply(t, last)
	if got := f.live(t, rotated(0)); got != 2 {
		t.Fatalf("%d match sets, want both until nobody judges by the first", got)
	}
	f.restart(t)
	f.apply(t, last)
	f.switched = f.switched.Add(-2 * settled)
	clock, err := readClock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.collect(clock); err != nil {
		t.Fatal(err)
	}
	if got := f.live(t, rotated(0)); got != 1 {
		t.Errorf("%d match sets are live, want 1", got)
	}
	f.wantOpen(t, true, rotated(0))
}

// TestPagesBehindTheLastLivingAreCollected: an address that many names had, and few have now.
func TestPagesBehindTheLastLivingAreCollected(t *testing.T) {
	f := newFixture(t)
	clock, err := readClock()
	if err != nil {
		t.Fatal(err)
	}
	doors := map[door]uint64{}
	a := netip.MustParseAddr(rotated(0))
	slots := uint32(len(bpf.DatapathMapping{}.Slots))
	for set := range 2*slots + 1 { // three pages
		doors[door{a, set + 1}] = clock.toTicks(clock.now.Add(time.Minute))
	}
	doors[door{a, 3}] = clock.toTicks(clock.now.Add(time.Hour)) // in the first page
	if err := f.locked(func() error { return f.remap(doors) }); err != nil {
		t.Fatal(err)
	}
	if got := f.pages(t); got != 3 {
		t.Fatalf("%d pages, want 3", got)
	}
	later := clock
	later.now, later.boot = clock.now.Add(10*time.Minute), clock.boot+uint64(10*time.Minute)
	if _, err := f.collect(later); err != nil {
		t.Fatal(err)
	}
	if got := f.pages(t); got != 1 {
		t.Errorf("%d pages, want 1", got)
	}
	if got := f.counter(t, "mappings_evicted"); got != 0 {
		t.Errorf("%d counted as evicted", got)
	}
}

// TestTightRoomIsCleared: where room is tight, what has expired goes at once, so that it pushes out nothing.
func TestTightRoomIsCleared(t *testing.T) {
	f := newFixture(t, func(cfg *Config) { cfg.MaxMappings = 512 })
	clock, err := readClock()
	if err != nil {
		t.Fatal(err)
	}
	doors := map[door]uint64{}
	for i := range f.cfg.MaxMappings * 15 / 16 {
		expiry := clock.now.Add(time.Hour)
		if i%2 == 0 {
			expiry = clock.now.Add(time.Minute)
		}
		doors[door{netip.MustParseAddr(rotated(int(i))), 1}] = clock.toTicks(expiry)
	}
	if err := f.locked(func() error { return f.remap(doors) }); err != nil {
		t.Fatal(err)
	}
	later := clock
	later.now, later.boot = clock.now.Add(61*time.Second), clock.boot+uint64(61*time.Second)
	before := f.pages(t)
	tight, err := f.collect(later)
	if err != nil || !tight || f.pages(t) != before {
		t.Fatalf("tight %v, %v, %d of %d left: want all, they expired just now", tight, err, f.pages(t), before)
	}
	if _, err := f.collect(later); err != nil {
		t.Fatal(err)
	}
	if got := f.pages(t); got > before*6/10 {
		t.Errorf("%d of %d left", got, before)
	}
}

// TestEventsWaitUntilTheyAreWrittenDown: a process that is killed with events that it has read and not
// written down leaves them to the next.
func TestEventsWaitUntilTheyAreWrittenDown(t *testing.T) {
	f := newFixture(t)
	f.apply(t, hostRules(t, allow("*.example.com")))
	for i := range 300 {
		f.resolve(t, fmt.Sprintf("n%d.example.com", i), 3600, fmt.Sprintf("n%d.example.com. IN A %s", i, rotated(i)))
	}
	clock, err := readClock()
	if err != nil {
		t.Fatal(err)
	}
	end := f.events.next + uint64(f.events.available())
	if answers, _ := f.readBatch(f.events, end, clock); len(answers) != eventBatch {
		t.Fatalf("read %d events, want a batch of %d", len(answers), eventBatch)
	}
	f.restart(t) // nothing was released
	f.drained(t)
	if got := f.table.Len(); got != 300 {
		t.Errorf("the next process knows %d mappings, want 300", got)
	}
	f.restart(t) // all was released, and written down
	if got := f.events.available(); got != 0 {
		t.Errorf("%d bytes are still in the ring buffer", got)
	}
	if got := f.table.Len(); got != 300 {
		t.Errorf("the journal has %d mappings, want 300", got)
	}
}

// TestUsedMatchSetsAreNotForgotten: a pass over all mappings leaves what patterns of any form opened.
func TestUsedMatchSetsAreNotForgotten(t *testing.T) {
	f := newFixture(t)
	f.apply(t, hostRules(t, allow("x.test")))
	f.apply(t, hostRules(t, allow("exact.example.com"), allow("*.below.example.com"), allow("www.*.com", "s3-*.example.net", "*.s3-*.example.org")))
	names := []string{"exact.example.com", "a.b.below.example.com", "www.a.b.com", "s3-eu.example.net", "x.s3-eu.example.org"}
	for i, name := range names {
		f.resolve(t, name, 3600, fmt.Sprintf("%s. IN A %s", name, rotated(i)))
	}
	f.apply(t, hostRules(t, allow("exact.example.com"), allow("*.below.example.com"), allow("www.*.com", "s3-*.example.net", "*.s3-*.example.org"), `{"action": "ALLOW", "domains": ["*"], "ports": [{"protocol": "TCP", "port": 8443}]}`))
	for range 2 {
		f.switched = f.switched.Add(-2 * settled)
		clock, err := readClock()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.collect(clock); err != nil {
			t.Fatal(err)
		}
	}
	for i, name := range names {
		if !f.opens(t, rotated(i)+":443") || !f.opens(t, rotated(i)+":8443") {
			t.Errorf("%s is shut", name)
		}
	}
}
