package bpf_test

import (
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
)

// group is how many cells of mappings stand together.
const group = uint32(bpf.DatapathMappingLimitMAPPING_GROUP)

// withCells makes a table of mappings with so many cells.
func withCells(cells uint32) func(*ebpf.CollectionSpec) {
	return func(spec *ebpf.CollectionSpec) { spec.Maps[bpf.DatapathMapMappings].MaxEntries = cells }
}

// nth is an address of either family.
func nth(i int) netip.Addr {
	if i%3 == 0 {
		return netip.AddrFrom16([16]byte{0x20, 0x01, 0xd, 0xb8, byte(i), 14: byte(i >> 8), 15: byte(i)})
	}
	return netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})
}

// away sums up what homes say of cells elsewhere.
func away(t *testing.T, d *bpftest.Datapath) (sum uint32) {
	t.Helper()
	for at := range d.Mappings.MaxEntries() {
		var cell bpf.DatapathMapping
		if err := d.Mappings.Lookup(at, &cell); err != nil {
			t.Fatal(err)
		}
		sum += cell.Used&0xf + cell.Used>>4&0xf
	}
	return sum
}

// Many CPUs at once give cells of a table that is much too small to one address after the other, prolong, forget and
// free, and judge connections. No address is ever opened by what only others were given.
func TestNoAddressHasWhatAnotherWasGiven(t *testing.T) {
	const (
		cells, addresses = group, 24
		sets             = 4 // of an address
		writers, readers = 3, 2
		rounds           = 400 // of a writer, with a whole request each
		connections      = 60  // of a reader, in many runs each
		runs             = 4000
		firstSet         = 1000
	)
	g := newGate(t, enforced, withCells(cells))
	hour, long := after(t, time.Hour), after(t, 24*time.Hour)
	// Address n has the match sets that leave n, divided by the number of addresses. What is even is never allowed.
	rules := map[bpf.VerdictKey][]bpf.VerdictEntry{}
	for set := uint32(firstSet); set < firstSet+sets*addresses; set++ {
		if set%2 == 1 {
			rules[bpf.VerdictKey{Workload: 1, Component: component(bpf.DatapathComponentCOMPONENT_MATCH_SET, set)}] = []bpf.VerdictEntry{every(1, 0)}
		}
	}
	g.LayRules(0, rules)
	entryOf := func(n int) bpf.DatapathRemapEntry {
		address := n % addresses
		entry := remapEntry(nth(address), uint32(firstSet+address+n/addresses%sets*addresses), hour)
		switch n % 11 {
		case 0:
			entry.Action, entry.ExpiresAt = bpf.DatapathRemapActionREMAP_FORGET, long
		case 1:
			entry.Action, entry.ExpiresAt, entry.MatchSet = bpf.DatapathRemapActionREMAP_COLLECT, long, 0
		case 2:
			entry.ExpiresAt = uint64(bpf.DatapathMappingLimitMAPPING_FORGOTTEN) + 1 // has expired
		case 3:
			entry.ExpiresAt = long
		}
		return entry
	}
	var group sync.WaitGroup
	for writer := range writers {
		group.Go(func() {
			for round := range rounds {
				request := make([]bpf.DatapathRemapEntry, len(bpf.DatapathRemapRequest{}.Entries))
				for i := range request {
					request[i] = entryOf((writer*7+1)*(round*len(request)+i) + writer)
				}
				g.Remap(request...)
			}
		})
	}
	for reader := range readers {
		group.Go(func() {
			for i := range connections {
				address := nth((i + reader) * 2 % addresses)
				source := "10.1.0.1:4000"
				if address.Is6() {
					source = "[fd01::1]:4000"
				}
				packet := bpftest.Connection(bpftest.TCP, netip.MustParseAddrPort(source), netip.AddrPortFrom(address, 443))
				if _, err := g.EgressForwarded.Run(&ebpf.RunOptions{Data: packet, Repeat: runs}); err != nil {
					t.Errorf("judge a connection: %v", err)
					return
				}
			}
		})
	}
	group.Wait()
	for at, cell := range g.Cells() {
		for _, slot := range cell.Slots {
			set, expires := bpftest.Slot(slot)
			if expires != 0 && netip.AddrFrom16(cell.Address.Bytes).Unmap() != nth(int(set-firstSet)%addresses) {
				t.Errorf("cell %d, of %v, has match set %d", at, netip.AddrFrom16(cell.Address.Bytes).Unmap(), set)
			}
		}
	}
	counted := g.Counted()
	if open := counted[allowed]; open != 0 {
		t.Errorf("%d of %d connections were open", open, counted[allowed]+counted[denied])
	}
	if created, gone := counted[bpf.DatapathCounterCOUNTER_MAPPING_CREATED], counted[bpf.DatapathCounterCOUNTER_MAPPING_COLLECTED]+counted[bpf.DatapathCounterCOUNTER_MAPPING_DROPPED]; created-gone != uint64(len(g.Cells())) {
		t.Errorf("%d cells were made, %d are gone, %d are there", created, gone, len(g.Cells()))
	}
	if counted[bpf.DatapathCounterCOUNTER_MAPPING_DROPPED] < 1000 {
		t.Errorf("%d gave way: too few to tell anything", counted[bpf.DatapathCounterCOUNTER_MAPPING_DROPPED])
	}
	// Of an address that two CPUs added at once there may be two cells.
	for range cells {
		for n := range addresses {
			g.Remap(collectEntry(nth(n), 0, long))
		}
	}
	if left := len(g.Cells()); left != 0 {
		t.Errorf("%d cells are left", left)
	}
	if sum := away(t, g.Datapath); sum != 0 {
		t.Errorf("homes look for %d cells that are not there", sum)
	}
}

// A table has room for what it was made for, wherever the addresses fall.
func TestRoomForMappings(t *testing.T) {
	const addresses = 8192
	d := bpftest.Load(t, 1, withCells(bpf.MappingCells(addresses)))
	hour := after(t, time.Hour)
	const request = len(bpf.DatapathRemapRequest{}.Entries)
	for first := 0; first < addresses; first += request {
		var entries []bpf.DatapathRemapEntry
		for i := range request {
			entries = append(entries, remapEntry(nth(first+i), 5, hour))
		}
		d.Remap(entries...)
	}
	if got := d.Counter(bpf.DatapathCounterCOUNTER_MAPPING_DROPPED); got != 0 {
		t.Errorf("%d of %d gave way", got, addresses)
	}
	if got := len(d.Cells()); got != addresses {
		t.Errorf("%d cells, want %d", got, addresses)
	}
}

// What has expired gives way before what lives, and of that the agent's before what was used.
func TestWhoGivesWay(t *testing.T) {
	const cells = group // one group, which all addresses share
	g := newGate(t, enforced, withCells(cells))
	hour, expired := after(t, time.Hour), after(t, -time.Second)
	g.rules(component(bpf.DatapathComponentCOMPONENT_MATCH_SET, apiSet), every(1, 0))
	used := nth(1)
	g.Remap(remapEntry(used, apiSet, hour))
	for i := range int(cells) - 1 {
		g.Remap(remapEntry(nth(3*i+100), 9, hour))
	}
	for at, cell := range g.Cells() {
		if set, _ := bpftest.Slot(cell.Slots[0]); set == 9 {
			cell.Slots[0] = expired<<bpf.DatapathMappingLimitMAPPING_MATCH_SET_BITS | 9
			g.Put(g.Mappings, at, cell)
		}
	}
	g.want("before", connect(bpftest.TCP, used.String()+":443"), allowed)
	g.ResetCounters()
	for i := range int(cells) - 1 {
		g.Remap(remapEntry(nth(3*i+200), apiSet, hour))
	}
	want := map[bpf.DatapathCounter]uint64{bpf.DatapathCounterCOUNTER_MAPPING_CREATED: uint64(cells) - 1, bpf.DatapathCounterCOUNTER_MAPPING_COLLECTED: uint64(cells) - 1}
	if diff := cmp.Diff(want, g.Counted()); diff != "" {
		t.Errorf("in place of what expired: counted (-want +got):\n%s", diff)
	}
	for i := range 5 * int(cells) {
		g.Remap(remapEntry(nth(3*i+400), apiSet, hour))
	}
	if got := g.Counter(bpf.DatapathCounterCOUNTER_MAPPING_DROPPED); got != 5*uint64(cells) {
		t.Errorf("%d gave way, want %d", got, 5*cells)
	}
	g.want("after", connect(bpftest.TCP, used.String()+":443"), allowed)
}

// Of those that were used alike, that gives way which expires first.
func TestTheFirstAddressToExpireGivesWay(t *testing.T) {
	const cells = group
	d := bpftest.Load(t, 1, withCells(cells))
	hour := after(t, time.Hour)
	for i := range int(cells) {
		d.Remap(remapEntry(nth(i), apiSet, hour+uint64(i*3%int(cells))))
	}
	for at, cell := range d.Cells() { // as if all had been used at the same moment
		cell.Used = 1<<31 | cell.Used&uint32(bpf.DatapathMappingLimitMAPPING_AWAY)
		d.Put(d.Mappings, at, cell)
	}
	d.Remap(remapEntry(nth(100), apiSet, hour+100))
	for i := range int(cells) {
		if got, want := len(d.Learned(nth(i))) != 0, i != 0; got != want {
			t.Errorf("address %d: known %v, want %v", i, got, want)
		}
	}
}

// An address has two cells where two CPUs learned it at the same moment: both count, and both forget.
func TestTwoCellsOfAnAddress(t *testing.T) {
	g := newGate(t, enforced)
	hour := after(t, time.Hour)
	g.rules(component(bpf.DatapathComponentCOMPONENT_MATCH_SET, apiSet), every(1, 0))
	g.Remap(remapEntry(known, 7, hour))
	for at, cell := range g.Cells() {
		twin := cell
		twin.Slots[0] = hour<<bpf.DatapathMappingLimitMAPPING_MATCH_SET_BITS | apiSet
		g.Put(g.Mappings, at^5, twin)
		cell.Used += uint32(bpf.DatapathMappingLimitMAPPING_NEAR)
		g.Put(g.Mappings, at, cell)
	}
	g.want("both count", connect(bpftest.TCP, "192.0.2.1:443"), allowed)
	if failed := g.Remap(forgetEntry(known, apiSet, hour), forgetEntry(known, 7, hour)); failed != 0 {
		t.Errorf("%d came to nothing", failed)
	}
	g.want("both forget", connect(bpftest.TCP, "192.0.2.1:443"), denied)
	if failed := g.Remap(collectEntry(known, 0, hour), collectEntry(known, 0, hour)); failed != 0 {
		t.Errorf("%d are not freed", failed)
	}
	if left, sum := len(g.Cells()), away(t, g.Datapath); left != 0 || sum != 0 {
		t.Errorf("%d cells are left, %d are looked for", left, sum)
	}
}

// The first page of an address is full, and has expired; what lives is behind it. It stays while others are there to
// give way that have expired too.
func TestExpiredPageThatLeadsOn(t *testing.T) {
	g := newGate(t, enforced, withCells(group))
	hour, expired := after(t, time.Hour), after(t, -time.Second)
	g.rules(component(bpf.DatapathComponentCOMPONENT_MATCH_SET, apiSet), every(1, 0))
	for set := range slotsOfPage {
		g.Remap(remapEntry(known, 500+set, hour))
	}
	g.Remap(remapEntry(known, apiSet, hour))
	for at, cell := range g.Cells() {
		if page, _ := cell.Owned(); page == 0 {
			for i := range cell.Slots {
				cell.Slots[i] = expired<<bpf.DatapathMappingLimitMAPPING_MATCH_SET_BITS | uint64(500+i)
			}
			g.Put(g.Mappings, at, cell)
		}
	}
	for i := range int(group) - 2 {
		g.Remap(remapEntry(nth(i), 9, expired))
	}
	for i := range 3 * int(group) {
		g.Remap(remapEntry(nth(100+i), 9, expired))
	}
	g.want("behind a page that expired", connect(bpftest.TCP, "192.0.2.1:443"), allowed)
}
