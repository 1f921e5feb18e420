package datapath

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/cilium/ebpf"

	"github.com/nameward/nameward/bpf"
)

const (
	// collectAfter is how long a mapping has been expired before it is deleted: one that is asked for
	// again and again is not deleted each time.
	collectAfter = time.Minute
	// collectMemory is for how long a deletion is remembered. A program may prolong an entry at the
	// very moment at which it is deleted; the event that it sends says so, and the entry is made again.
	collectMemory = 5 * time.Second

	matchSetBits = bpf.DatapathMappingLimitMAPPING_MATCH_SET_BITS
)

// collect deletes the mappings that expired some time ago, and counts those that the kernel dropped
// to make room.
func (d *Datapath) collect(c clock) error {
	expired, held, err := d.findExpired(c)
	if err != nil {
		return err
	}
	if err := d.locked(func() error { return d.deleteMappings(expired, held, c) }); err != nil {
		return err
	}
	return d.locked(func() error { return d.journal.forget(c.boot, int(d.cfg.MaxMappings)) })
}

// findExpired lists the addresses whose pages all are expired, and counts the pages of all.
func (d *Datapath) findExpired(c clock) (expired map[netip.Addr]int, held uint64, err error) {
	expired = map[netip.Addr]int{} // pages of the address
	live := map[netip.Addr]bool{}
	before := c.toTicks(c.now.Add(-collectAfter))
	var cursor ebpf.MapBatchCursor
	keys := make([]bpf.DatapathMappingKey, batch)
	values := make([]bpf.DatapathMapping, batch)
	for {
		n, err := d.kernel.Mappings.BatchLookup(&cursor, keys, values, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil, 0, fmt.Errorf("read mappings: %w", err)
		}
		held += uint64(n) //nolint:gosec // a count
		for i := range n {
			a := netip.AddrFrom16(keys[i].Address.Bytes)
			expired[a] = max(expired[a], int(keys[i].Page)+1)
			live[a] = live[a] || lives(values[i], before)
		}
		if err != nil {
			break
		}
	}
	for a := range live {
		if live[a] {
			delete(expired, a)
		}
	}
	return expired, held, nil
}

// lives reports whether a slot expires after a time, in ticks.
func lives(m bpf.DatapathMapping, ticks uint64) bool {
	return slices.ContainsFunc(m.Slots[:], func(slot uint64) bool { return slot>>matchSetBits > ticks })
}

// deleteMappings deletes the pages of addresses, the last first, since the first leads to it.
func (d *Datapath) deleteMappings(expired map[netip.Addr]int, held uint64, c clock) error {
	for a, since := range d.expired {
		if c.now.Sub(since) > collectMemory {
			delete(d.expired, a)
		}
	}
	before := c.toTicks(c.now.Add(-collectAfter))
	for a, pages := range expired {
		key := bpf.DatapathMappingKey{Address: address(a)}
		d.expired[a.Unmap()] = c.now
		for page := pages - 1; page >= 0; page-- {
			key.Page = bpf.DatapathMappingLimit(page) //nolint:gosec // a page
			var m bpf.DatapathMapping
			if err := d.kernel.Mappings.Lookup(&key, &m); err != nil || lives(m, before) {
				break
			}
			if err := d.kernel.Mappings.Delete(&key); err != nil {
				break
			}
			d.deleted++
			held--
		}
	}
	return d.countEvicted(held)
}

// collectedSince reports whether an address was deleted at about the time at which an answer with it
// was learned.
func (d *Datapath) collectedSince(a netip.Addr, l learned) bool {
	at, collected := d.expired[a]
	return collected && l.LearnedAt.Sub(at).Abs() < collectMemory
}

// countMappings takes stock at the start.
func (d *Datapath) countMappings() error {
	c, err := readClock()
	if err != nil {
		return err
	}
	_, held, err := d.findExpired(c)
	if err != nil {
		return err
	}
	created, err := d.kernel.counter(bpf.DatapathCounterCOUNTER_MAPPING_CREATED)
	d.created = created - held
	return err
}

// countEvicted concludes from what was made, deleted and is there what the kernel dropped. What is made
// meanwhile blurs it for one pass; it never falls.
func (d *Datapath) countEvicted(held uint64) error {
	created, err := d.kernel.counter(bpf.DatapathCounterCOUNTER_MAPPING_CREATED)
	if err != nil {
		return err
	}
	if gone := created - d.created - d.deleted; gone > held && gone-held > d.evicted.Load() && gone < 1<<63 {
		d.evicted.Store(gone - held)
	}
	return nil
}
