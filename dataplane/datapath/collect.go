package datapath

import (
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"

	"github.com/nameward/nameward/bpf"
)

const (
	// collectAfter is how long a mapping has been expired before it is deleted: one that is asked for
	// again and again is not deleted each time. Where room is tight it is deleted at once.
	collectAfter = time.Minute
	// collectMemory is for how long a deletion is remembered. A program may prolong an entry at the
	// very moment at which it is deleted; the event that it sends says so, and the entry is made again.
	collectMemory = 5 * time.Second

	matchSetBits = bpf.DatapathMappingLimitMAPPING_MATCH_SET_BITS
)

// stock is what a pass over all mappings found.
type stock struct {
	created uint64                // pages made, when the pass began
	held    uint64                // pages
	pages   map[netip.Addr]uint32 // of each address, as bits: those that are there, and above, those that live
	unused  map[door]bool         // live match sets that no name has
}

// collect deletes the mappings that expired some time ago, takes what no name has, and counts those that
// the kernel dropped to make room. It reports whether room is tight.
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
	// From 7/8 of the room on, what has expired must not push out what lives. What the table has beyond
	// that may lie idle in the lists that the kernel keeps by CPU.
	tight = found.held > uint64(d.cfg.MaxMappings)/8*7
	d.tight.Store(tight)
	d.counted.Store(found.created)
	return tight, d.locked(func() error { return d.journal.forget(c, int(d.cfg.MaxMappings)) })
}

// growsFast reports whether so many mappings were made since the last pass that room may be tight.
func (d *Datapath) growsFast() bool {
	created, err := d.kernel.counter(bpf.DatapathCounterCOUNTER_MAPPING_CREATED)
	return err == nil && created-d.counted.Load() > uint64(d.cfg.MaxMappings)/8
}

// takeStock passes over all mappings. A page lives if it expires after a time, in ticks.
func (d *Datapath) takeStock(before, now uint64) (found stock, err error) {
	if found.created, err = d.kernel.counter(bpf.DatapathCounterCOUNTER_MAPPING_CREATED); err != nil {
		return found, err
	}
	found.pages, found.unused = map[netip.Addr]uint32{}, map[door]bool{}
	var cursor ebpf.MapBatchCursor
	keys := make([]bpf.DatapathMappingKey, batch)
	values := make([]bpf.DatapathMapping, batch)
	for {
		n, err := d.kernel.Mappings.BatchLookup(&cursor, keys, values, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return found, fmt.Errorf("read mappings: %w", err)
		}
		found.held += uint64(n) //nolint:gosec // a count
		if err := d.locked(func() error { d.examine(&found, keys[:n], values[:n], before, now); return nil }); err != nil {
			return found, err
		}
		if err != nil {
			return found, nil
		}
	}
}

func (d *Datapath) examine(found *stock, keys []bpf.DatapathMappingKey, values []bpf.DatapathMapping, before, now uint64) {
	for i := range keys {
		a := netip.AddrFrom16(keys[i].Address.Bytes).Unmap()
		page := uint32(1) << keys[i].Page
		found.pages[a] |= page
		for _, slot := range values[i].Slots {
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
	for a, since := range d.expired {
		if c.now.Sub(since) > collectMemory {
			delete(d.expired, a)
		}
	}
	var entries []bpf.DatapathRemapEntry
	for a, pages := range found.pages {
		last, living := bits.Len32(pages&(1<<mappingPages-1)), bits.Len32(pages>>mappingPages)
		if last > living {
			d.expired[a] = c.now
		}
		for page := last - 1; page >= living; page-- {
			entries = append(entries, bpf.DatapathRemapEntry{
				Action: bpf.DatapathRemapActionREMAP_COLLECT, Address: address(a), MatchSet: uint32(page), ExpiresAt: before, //nolint:gosec // a page
			})
		}
	}
	failed, err := d.kernel.changeMappings(entries)
	if err != nil {
		return err
	}
	if err := d.forgetUnused(found.unused); err != nil {
		return err
	}
	return d.countEvicted(found.created, found.held-uint64(len(entries)-failed)) //nolint:gosec // no more than there are
}

// collectedSince reports whether an address was deleted at about the time at which an answer with it
// was learned.
func (d *Datapath) collectedSince(a netip.Addr, l learned) bool {
	at, collected := d.expired[a]
	return collected && l.LearnedAt.Sub(at).Abs() < collectMemory
}

// countMappings takes stock at the start. What the kernel dropped while no agent ran is counted then. Counters
// that were made after the mappings know less than there is: that much is amiss for good.
func (d *Datapath) countMappings() error {
	found, err := d.takeStock(0, 0)
	if err != nil {
		return err
	}
	// What was made while stock was taken may be in it: it is not to look as if it had always been there.
	created, err := d.kernel.counter(bpf.DatapathCounterCOUNTER_MAPPING_CREATED)
	if err != nil {
		return err
	}
	gone, err := d.goneMappings(created, found.held)
	if err != nil {
		return err
	}
	d.baseline = min(gone, 0)
	d.counted.Store(found.created)
	return d.countEvicted(found.created, found.held)
}

// countEvicted concludes from what was made, collected and is there what the kernel dropped. What is made
// meanwhile makes it less for one pass; it never falls.
func (d *Datapath) countEvicted(created, held uint64) error {
	gone, err := d.goneMappings(created, held)
	if err != nil {
		return err
	}
	before := d.evicted.Load()
	if evicted := gone - d.baseline; evicted > int64(before) { //nolint:gosec // a count
		if now := time.Now(); now.Sub(d.warned) >= warnInterval {
			d.log.Warn("mappings gave way to newer ones: --max-mappings is too low, or a client resolves without end", "mappings", evicted-int64(before), "in_all", evicted) //nolint:gosec // a count
			d.warned = now
		}
		d.evicted.Store(uint64(evicted)) //nolint:gosec // more than a count
	}
	return nil
}

func (d *Datapath) goneMappings(created, held uint64) (int64, error) {
	collected, err := d.kernel.counter(bpf.DatapathCounterCOUNTER_MAPPING_COLLECTED)
	return int64(created - collected - held), err //nolint:gosec // wraps to the negative difference
}
