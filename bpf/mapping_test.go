package bpf_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
)

var known = netip.MustParseAddr("192.0.2.1")

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

func TestExpiredSlotsAreTaken(t *testing.T) {
	d := bpftest.Load(t, 1)
	expired, hour := after(t, -time.Second), after(t, time.Hour)
	slots := uint32(len(bpf.DatapathMapping{}.Slots))
	want := make(map[uint32]uint64)
	for set := range slots {
		d.Remap(remapEntry(known, set+1, expired))
	}
	for set := range slots {
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
	room := pages * uint32(len(bpf.DatapathMapping{}.Slots))
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
