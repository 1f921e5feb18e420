package datapath

import (
	"math"
	"slices"
)

// gather moves names together, wherever their homes are, so that free cells are in a row. The cells come before the
// slots that lead to them; those that were left are free when no program runs that may have read a slot of before.
func (n *names) gather() error {
	n.doubtful = true
	moved, buckets, left := n.nameIndex.gather()
	var cells []uint32
	var texts []rawCell
	for _, e := range moved {
		cells, texts = e.write(cells, texts)
	}
	if err := putKeys(n.kernel.NameCells, cells, texts); err != nil {
		return err
	}
	if err := n.writeBuckets(buckets); err != nil {
		return err
	}
	<-beginGrace()
	for _, cell := range left {
		n.room.give(cell)
	}
	n.doubtful = false
	return nil
}

// gather moves the last names to the first room that there is, those of more cells before those of fewer. It returns
// them, the buckets to write, and the cells that they left, which are not free yet.
func (x *nameIndex) gather() (moved []*nameEntry, buckets, left []uint32) {
	for cells := cellsOf(math.MaxUint8); cells > 0; cells-- {
		search := x.room.packed()
		for at, e := range slices.Backward(x.owners) {
			if e == nil || int(e.cell) != at || e.cells() != cells {
				continue
			}
			first, found := search(0, cells)
			if !found || first >= e.cell {
				break
			}
			bucket, slot := x.place(e)
			for range cells {
				x.owners[at] = nil
				left = append(left, uint32(at)) //nolint:gosec // a cell
				at++
			}
			e.cell = first
			x.own(e, e)
			x.buckets[bucket].Slots[slot] = x.buckets[bucket].Slots[slot]&^slotCellMask | uint64(e.cell+1)
			moved, buckets = append(moved, e), append(buckets, bucket)
		}
	}
	slices.Sort(buckets)
	return moved, slices.Compact(buckets), left
}
