package datapath

import (
	"math/bits"
	"net/netip"
	"time"

	"github.com/nameward/nameward/bpf"
)

const (
	// collectAfter is how long a mapping has been expired before it is deleted: one that is asked for
	// again and again is not deleted each time. Where room is tight it is deleted at once.
	collectAfter = time.Minute
	// takenMemory is for how long it is remembered that match sets were taken from an address: a program may
	// have learned it anew at that moment; the event that it sends says so.
	takenMemory = 5 * time.Second

	matchSetBits = bpf.DatapathMappingLimitMAPPING_MATCH_SET_BITS
)

// stock is what a pass over all mappings found.
type stock struct {
	created uint64                // pages made, when the pass began
	held    uint64                // pages that are there
	pages   map[netip.Addr]uint32 // of each address, as bits: those that are there, and above, those that live
	unused  map[door]bool         // live match sets that no name has
}

// collect deletes the mappings that expired some time ago, and takes what no name has. It reports whether room is
// tight.
func (d *Datapath) collect(c clock) (tight bool, err error) {
	before := c.toTicks(c.now.Add(-collectAfter))
	if d.tight.Load() {
		before = c.toTicks(c.now)
	}
	found, err := d.takeStock(before, c.toTicks(c.now))
	if err != nil {
		return false, err
	}
	if err := d.locked(func() error { return d.clear(found, before, c) }); err != nil {
		return false, err
	}
	// From 7/8 of the room on. A new mapping takes the place of one that has expired by itself, but not of a
	// full page, behind which others may be.
	tight = found.held > d.kernel.mappingRoom()/8*7
	d.tight.Store(tight)
	d.counted.Store(found.created)
	if err := d.warnOfEvictions(); err != nil {
		return tight, err
	}
	return tight, d.locked(func() error { return d.journal.forget(c, int(d.cfg.MaxMappings)) })
}

// growsFast reports whether so many mappings were made since the last pass that room may be tight.
func (d *Datapath) growsFast() bool {
	created, err := d.kernel.counter(bpf.DatapathCounterCOUNTER_MAPPING_CREATED)
	return err == nil && created-d.counted.Load() > d.kernel.mappingRoom()/8
}

// takeStock passes over all mappings. A page lives if it expires after a time, in ticks.
func (d *Datapath) takeStock(before, now uint64) (found stock, err error) {
	if found.created, err = d.kernel.counter(bpf.DatapathCounterCOUNTER_MAPPING_CREATED); err != nil {
		return found, err
	}
	found.pages, found.unused = map[netip.Addr]uint32{}, map[door]bool{}
	err = d.kernel.eachMapping(func(cells []bpf.DatapathMapping) error {
		found.held += uint64(len(cells))
		return d.locked(func() error { d.examine(&found, cells, before, now); return nil })
	})
	return found, err
}

func (d *Datapath) examine(found *stock, cells []bpf.DatapathMapping, before, now uint64) {
	for i := range cells {
		a := netip.AddrFrom16(cells[i].Address.Bytes).Unmap()
		number, _ := cells[i].Owned()
		page := uint32(1) << number
		found.pages[a] |= page
		for _, slot := range cells[i].Slots {
			if slot>>matchSetBits > before {
				found.pages[a] |= page << mappingPages
			}
			set := uint32(slot & (1<<matchSetBits - 1))
			if slot>>matchSetBits > now && d.inForce && !d.uses(set) {
				found.unused[door{a, set}] = true
			}
		}
	}
}

const mappingPages = bpf.DatapathMappingLimitMAPPING_PAGES

// clear deletes the pages behind the last that lives, the last first, since each leads to the next; and
// takes what no name has.
func (d *Datapath) clear(found stock, before uint64, c clock) error {
	for a, since := range d.taken {
		if c.now.Sub(since) > takenMemory {
			delete(d.taken, a)
		}
	}
	var entries []bpf.DatapathRemapEntry
	for a, pages := range found.pages {
		last, living := bits.Len32(pages&(1<<mappingPages-1)), bits.Len32(pages>>mappingPages)
		for page := last - 1; page >= living; page-- {
			entries = append(entries, bpf.DatapathRemapEntry{
				Action: bpf.DatapathRemapActionREMAP_COLLECT, Address: address(a), MatchSet: uint32(page), ExpiresAt: before, //nolint:gosec // a page
			})
		}
	}
	if _, err := d.kernel.changeMappings(entries); err != nil {
		return err
	}
	return d.forgetUnused(found.unused)
}

// takenSince reports whether match sets were taken from an address at about the time at which an answer with it
// was learned.
func (d *Datapath) takenSince(a netip.Addr, l learned) bool {
	at, taken := d.taken[a]
	return taken && l.LearnedAt.Sub(at).Abs() < takenMemory
}

// warnOfEvictions says so where mappings gave way to newer ones since it was called last.
func (d *Datapath) warnOfEvictions() error {
	evicted, err := d.kernel.counter(bpf.DatapathCounterCOUNTER_MAPPING_DROPPED)
	if err != nil {
		return err
	}
	if now := time.Now(); evicted > d.evicted && now.Sub(d.warned) >= warnInterval {
		d.log.Warn("mappings gave way to newer ones: --max-mappings is too low, or a client resolves without end", "mappings", evicted-d.evicted, "in_all", evicted)
		d.warned, d.evicted = now, evicted
	}
	return nil
}

// countMappings begins to watch how many are made, and give way.
func (d *Datapath) countMappings() error {
	created, err := d.kernel.counter(bpf.DatapathCounterCOUNTER_MAPPING_CREATED)
	if err != nil {
		return err
	}
	d.counted.Store(created)
	d.evicted, err = d.kernel.counter(bpf.DatapathCounterCOUNTER_MAPPING_DROPPED)
	return err
}
