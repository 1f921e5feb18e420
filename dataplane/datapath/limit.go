package datapath

import (
	"net/netip"
	"slices"
	"time"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/dataplane/lower"
	"github.com/nameward/nameward/dataplane/observe"
)

// dropOverdue shuts the doors of mappings that were too many of their name, but for those that another
// name keeps open. The kernel holds match sets of addresses, not names, so only the agent can tell. To be
// called when what the kernel told is taken in: another name may be in it.
func (d *Datapath) dropOverdue() error {
	gone := slices.DeleteFunc(d.overdue, func(m observe.Dropped) bool { return d.table.Holds(m.Names[0], m.Address) })
	d.overdue = nil
	if len(gone) == 0 {
		return nil
	}
	clock, err := readClock()
	if err != nil {
		return err
	}
	_ = d.journal.drop(gone, clock) // what is left of them are mappings that are too many at the next start too
	var entries []bpf.DatapathRemapEntry
	for _, m := range gone {
		sets := d.setsOf(m)
		d.keepOwned(sets, m.Address, clock)
		for set := range sets {
			entries = append(entries, forgetting(door{m.Address, set}, clock.toTicks(lastExpiry(m))))
		}
		// A program may have learned the address for a name of which no event was read yet: when it is,
		// the door is opened again.
		d.taken[m.Address] = clock.now
	}
	_, err = d.kernel.changeMappings(entries)
	return err
}

// lastExpiry is until when the kernel can have prolonged a mapping without saying so: for less than its
// lifetime. What expires later another name has opened.
func lastExpiry(gone observe.Dropped) time.Time {
	return gone.ExpiresAt.Add(max(0, gone.ExpiresAt.Sub(gone.LastSeen)))
}

// setsOf returns the match sets by which the names of a mapping open its address, in both generations:
// during a switch the programs learn for both.
func (d *Datapath) setsOf(gone observe.Dropped) map[uint32]bool {
	sets := map[uint32]bool{}
	for _, name := range gone.Names {
		for generation := range uint32(len(d.names.general)) {
			for _, set := range d.names.matchSets(name, generation) {
				sets[set] = true
			}
		}
	}
	return sets
}

// keepOwned leaves out the match sets that a name has to which the address still belongs.
func (d *Datapath) keepOwned(sets map[uint32]bool, address netip.Addr, c clock) {
	for owner := range d.table.OwnersOf(c.now, address) {
		for generation := range uint32(len(d.names.general)) {
			for _, set := range d.names.matchSets(owner.Name, generation) {
				delete(sets, set)
			}
		}
		if len(sets) == 0 {
			return
		}
	}
}

// forgetReplaced takes the match sets that addresses had before the last switch and that no name has any
// more: a selector that lost a pattern goes on under a new id, and its old match sets would take room until
// they expire. To be called when no program runs that judges by the rule set before.
func (d *Datapath) forgetReplaced() error {
	replaced := d.replaced
	d.replaced = nil
	if !d.inForce {
		return nil
	}
	var entries []bpf.DatapathRemapEntry
	for _, key := range sortedDoors(replaced) {
		if !d.uses(key.matchSet) {
			entries = append(entries, forgetting(key, whenever))
		}
	}
	_, err := d.kernel.changeMappings(entries)
	return err
}

// forgetSettled does so once no such program can run any more.
func (d *Datapath) forgetSettled() error {
	if len(d.replaced) == 0 || time.Since(d.switched) < settled {
		return nil
	}
	return d.forgetReplaced()
}

// uses reports whether any name has a match set in the generation that is in force, which must be known.
func (d *Datapath) uses(set uint32) bool { return d.lowering.Uses(lower.MatchSet(set)) }

// whenever is after every expiry.
const whenever = ^uint64(0)

// forgetting is the entry that takes a match set from an address, unless it expires after a time in ticks.
func forgetting(key door, expiry uint64) bpf.DatapathRemapEntry {
	return bpf.DatapathRemapEntry{
		Action: bpf.DatapathRemapActionREMAP_FORGET, Address: address(key.address), MatchSet: key.matchSet, ExpiresAt: expiry,
	}
}

// forgetUnused takes match sets that no name had when all mappings were passed over, and still none has:
// what a process before left behind.
func (d *Datapath) forgetUnused(unused map[door]bool) error {
	if !d.inForce || time.Since(d.switched) < settled {
		return nil
	}
	var entries []bpf.DatapathRemapEntry
	for _, key := range sortedDoors(unused) {
		if !d.uses(key.matchSet) {
			entries = append(entries, forgetting(key, whenever))
		}
	}
	_, err := d.kernel.changeMappings(entries)
	return err
}
