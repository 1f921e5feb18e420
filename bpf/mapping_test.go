package bpf_test

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
)

var known = netip.MustParseAddr("192.0.2.1")

// slotsOfPage is how many match sets one page of a mapping has.
const slotsOfPage = uint32(len(bpf.DatapathMapping{}.Slots))

// after gives a time from now in ticks.
func after(t *testing.T, d time.Duration) uint64 {
	t.Helper()
	return bpftest.Ticks(bpftest.Now(t) + d)
}

func remapEntry(address netip.Addr, set uint32, expires uint64) bpf.DatapathRemapEntry {
	return bpf.DatapathRemapEntry{Address: bpftest.Addr(address), MatchSet: set, ExpiresAt: expires}
}

func TestMappingsAreProlongedNeverShortened(t *testing.T) {
	d := bpftest.Load(t, 1)
	hour, day := after(t, time.Hour), after(t, 24*time.Hour)
	for _, step := range []struct{ add, want uint64 }{{hour, hour}, {day, day}, {hour, day}} {
		if failed := d.Remap(remapEntry(known, 5, step.add)); failed != 0 {
			t.Errorf("%d entries found no place", failed)
		}
		if diff := cmp.Diff(map[uint32]uint64{5: step.want}, d.Learned(known)); diff != "" {
			t.Errorf("after %d (-want +got):\n%s", step.add, diff)
		}
	}
	if got := d.Counted(); got[bpf.DatapathCounterCOUNTER_MAPPING_CREATED] != 1 || len(got) != 1 {
		t.Errorf("counted %v", got)
	}
}

// In a full map what gives way is what was not used for longest, not what is too new to have been used: every
// address is connected to a moment after it was learned. The agent adds thousands meanwhile, as it does when
// rules change.
func TestFreshMappingsStayInAFullMap(t *testing.T) {
	const capacity, rounds, inFlight = 4096, 8, 16
	e := newExchange(t, func(spec *ebpf.CollectionSpec) { spec.Maps[bpf.DatapathMapMappings].MaxEntries = capacity })
	hour := after(t, time.Hour)
	agentAdds := func(round int) {
		entries := make([]bpf.DatapathRemapEntry, len(bpf.DatapathRemapRequest{}.Entries))
		for n := 0; n < capacity; n += len(entries) {
			for i := range entries {
				entries[i] = remapEntry(netip.AddrFrom4([4]byte{203, byte(round), byte((n + i) >> 8), byte(n + i)}), apiSet, hour)
			}
			e.Remap(entries...)
		}
	}
	agentAdds(0)
	gone := 0
	for round := range rounds {
		var fresh []netip.Addr
		for i := range inFlight {
			fresh = append(fresh, netip.AddrFrom4([4]byte{198, 18, byte(round), byte(i + 1)}))
			e.resolve("api.example.com", fmt.Sprintf("api.example.com 300 IN A %v", fresh[i]))
		}
		agentAdds(round + 1)
		for _, address := range fresh {
			if len(e.Learned(address)) == 0 {
				gone++
			}
		}
	}
	if gone > 0 {
		t.Errorf("%d of %d addresses were gone before they could be connected to", gone, rounds*inFlight)
	}
}

func TestExpiredSlotsAreTaken(t *testing.T) {
	d := bpftest.Load(t, 1)
	expired, hour := after(t, -time.Second), after(t, time.Hour)
	want := make(map[uint32]uint64)
	for set := range slotsOfPage {
		d.Remap(remapEntry(known, set+1, expired))
	}
	for set := range slotsOfPage {
		d.Remap(remapEntry(known, set+100, hour))
		want[set+100] = hour
	}
	if diff := cmp.Diff(want, d.Learned(known)); diff != "" {
		t.Errorf("match sets (-want +got):\n%s", diff)
	}
	if got := d.Counter(bpf.DatapathCounterCOUNTER_MAPPING_CREATED); got != 1 {
		t.Errorf("%d pages, although the first had expired slots", got)
	}
}

func TestTheFirstToExpireGivesWay(t *testing.T) {
	d := bpftest.Load(t, 1)
	pages := uint32(bpf.DatapathMappingLimitMAPPING_PAGES)
	room := pages * slotsOfPage
	base := after(t, time.Hour)
	want := make(map[uint32]uint64)
	for i := range room {
		expires := base + uint64((i*37)%room) // all differ, in no order
		d.Remap(remapEntry(known, 1+i, expires))
		if expires != base {
			want[1+i] = expires
		}
	}
	if got := d.Counter(bpf.DatapathCounterCOUNTER_MAPPING_CREATED); got != uint64(pages) {
		t.Errorf("%d pages, want %d", got, pages)
	}
	d.Remap(remapEntry(known, 1000, base+1000))
	want[1000] = base + 1000
	if diff := cmp.Diff(want, d.Learned(known)); diff != "" {
		t.Errorf("match sets (-want +got):\n%s", diff)
	}
	if got := d.Counter(bpf.DatapathCounterCOUNTER_MAPPING_EVICTED); got != 1 {
		t.Errorf("%d evictions, want 1", got)
	}
}

func TestRemapAddsManyAtOnce(t *testing.T) {
	d := bpftest.Load(t, 1)
	hour := after(t, time.Hour)
	var entries []bpf.DatapathRemapEntry
	address := known
	for range len(bpf.DatapathRemapRequest{}.Entries) {
		entries = append(entries, remapEntry(address, 9, hour))
		address = address.Next()
	}
	d.Remap(entries[:len(entries)-1]...)
	for i, entry := range entries {
		got := d.Learned(netip.AddrFrom16(entry.Address.Bytes))[9]
		if (got == hour) != (i < len(entries)-1) {
			t.Errorf("entry %d of %d: expires at %d", i, len(entries)-1, got)
		}
	}
}

func forgetEntry(address netip.Addr, set uint32, expires uint64) bpf.DatapathRemapEntry {
	entry := remapEntry(address, set, expires)
	entry.Action = bpf.DatapathRemapActionREMAP_FORGET
	return entry
}

func collectEntry(address netip.Addr, page uint32, expires uint64) bpf.DatapathRemapEntry {
	entry := remapEntry(address, page, expires)
	entry.Action = bpf.DatapathRemapActionREMAP_COLLECT
	return entry
}

// What is forgotten leaves a place that the next match set takes; the slots behind it are still found.
func TestForgottenMatchSets(t *testing.T) {
	d := bpftest.Load(t, 1)
	hour := after(t, time.Hour)
	var add []bpf.DatapathRemapEntry
	want := make(map[uint32]uint64)
	for set := range 2*slotsOfPage + 1 { // three pages
		add = append(add, remapEntry(known, set+1, hour))
		want[set+1] = hour
	}
	d.Remap(add...)
	if failed := d.Remap(forgetEntry(known, 1, hour), forgetEntry(known, slotsOfPage+2, hour-1), forgetEntry(known, 99, hour), forgetEntry(known.Next(), 1, hour)); failed != 3 {
		t.Errorf("%d entries came to nothing, want 3: one lives longer, one is not there, one address is not known", failed)
	}
	want[1] = uint64(bpf.DatapathMappingLimitMAPPING_FORGOTTEN)
	if diff := cmp.Diff(want, d.Learned(known)); diff != "" {
		t.Errorf("match sets (-want +got):\n%s", diff)
	}
	if failed := d.Remap(forgetEntry(known, 1, hour)); failed != 1 {
		t.Error("forgotten twice")
	}
	d.Remap(remapEntry(known, 50, hour))
	delete(want, 1)
	want[50] = hour
	if diff := cmp.Diff(want, d.Learned(known)); diff != "" {
		t.Errorf("after another (-want +got):\n%s", diff)
	}
	if got := d.Counter(bpf.DatapathCounterCOUNTER_MAPPING_CREATED); got != 3 {
		t.Errorf("%d pages, want 3", got)
	}
}

// An address is judged by every slot behind one that was forgotten.
func TestForgottenSlotHidesNothing(t *testing.T) {
	g := newGate(t, enforced)
	hour := after(t, time.Hour)
	g.Remap(remapEntry(known, 7, hour), remapEntry(known, apiSet, hour))
	g.rules(component(bpf.DatapathComponentCOMPONENT_MATCH_SET, apiSet), every(1, 0))
	g.want("before", connect(bpftest.TCP, "192.0.2.1:443"), allowed)
	g.Remap(forgetEntry(known, 7, hour))
	g.want("another was forgotten", connect(bpftest.TCP, "192.0.2.1:443"), allowed)
	g.Remap(forgetEntry(known, apiSet, hour))
	g.want("forgotten", connect(bpftest.TCP, "192.0.2.1:443"), denied)
	g.Remap(remapEntry(known, apiSet, hour))
	g.want("learned again", connect(bpftest.TCP, "192.0.2.1:443"), allowed)
}

func TestPagesAreCollectedFromTheEnd(t *testing.T) {
	d := bpftest.Load(t, 1)
	now, hour := after(t, 0), after(t, time.Hour)
	var add []bpf.DatapathRemapEntry
	for set := range slotsOfPage + 1 {
		add = append(add, remapEntry(known, set+1, hour))
	}
	d.Remap(add...)
	if failed := d.Remap(collectEntry(known, 0, hour), collectEntry(known, 1, now)); failed != 2 {
		t.Errorf("%d came to nothing, want 2: one is not the last, one lives", failed)
	}
	if failed := d.Remap(collectEntry(known, 1, hour), collectEntry(known, 0, hour), collectEntry(known, 0, hour)); failed != 1 {
		t.Errorf("%d came to nothing, want 1: it is gone", failed)
	}
	if got := d.Learned(known); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
	if got := d.Counter(bpf.DatapathCounterCOUNTER_MAPPING_COLLECTED); got != 2 {
		t.Errorf("counted %d, want 2", got)
	}
}

// What is learned at the moment at which it is forgotten stays, since it lives longer.
func TestLearningWinsOverForgetting(t *testing.T) {
	d := bpftest.Load(t, 1)
	hour := after(t, time.Hour)
	const sets = 16
	for round := range uint64(100) {
		var group sync.WaitGroup
		group.Go(func() {
			for set := range uint32(sets) {
				d.Remap(remapEntry(known, 1+set, hour+round))
			}
		})
		group.Go(func() {
			for set := range uint32(sets) {
				d.Remap(forgetEntry(known, 1+set, hour+round-1))
			}
		})
		group.Wait()
		for set := range uint32(sets) {
			if got := d.Learned(known)[1+set]; got != hour+round {
				t.Fatalf("round %d: match set %d expires at %d, want %d", round, 1+set, got, hour+round)
			}
		}
	}
}
