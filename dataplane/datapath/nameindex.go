package datapath

import (
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/dataplane/enforce"
	"github.com/nameward/nameward/dataplane/lower"
)

const (
	bucketSlots  = 8  // as the array in name_bucket; the compiler checks it
	bucketProbes = 10 // BUCKET_PROBES

	slotCellMask = 1<<24 - 1 // the low bits of a slot: cell + 1; above is the tag

)

var _ [bucketSlots]uint64 = bpf.DatapathNameBucket{}.Slots

// nameIndex is a mirror of name_index and name_cells: which names are in them, where, and what they say of
// each name in each generation. It finds names by its buckets, as the programs do.
type nameIndex struct {
	key     bpf.HashKey
	buckets []bpf.DatapathNameBucket
	owners  []*nameEntry    // of each cell; nil: free
	room    *nameRoom       // the same of each cell
	empty   map[string]bool // entries that say nothing in any generation: to be freed
}

// nameEntry is a name in the index. A name with more text than a cell holds has several in a row.
type nameEntry struct {
	name string
	cell uint32 // the first
	home uint32 // bucket that the hash names
	sets [2]lower.NameSets
}

func (e *nameEntry) cells() int { return cellsOfName(e.name) }

func newNameIndex(key bpf.HashKey, buckets, cells uint32) *nameIndex {
	return &nameIndex{
		key:     key,
		buckets: make([]bpf.DatapathNameBucket, buckets),
		owners:  make([]*nameEntry, cells),
		room:    newNameRoom(cells),
		empty:   map[string]bool{},
	}
}

// all yields every entry.
func (x *nameIndex) all() iter.Seq[*nameEntry] {
	return func(yield func(*nameEntry) bool) {
		for cell, e := range x.owners {
			if e != nil && int(e.cell) == cell && !yield(e) {
				return
			}
		}
	}
}

// find returns the entry of a name; nil if there is none, as of the root.
func (x *nameIndex) find(name string) *nameEntry {
	hashes := x.key.SuffixHashes(wireText(name))
	if len(hashes) == 0 {
		return nil
	}
	return x.lookup(name, hashes[0])
}

func (x *nameIndex) lookup(name string, hash uint64) *nameEntry {
	for probe := range uint32(bucketProbes) {
		for _, slot := range x.buckets[x.bucket(hash, probe)].Slots {
			if slot == 0 || (slot^hash)&^slotCellMask != 0 {
				continue
			}
			if e := x.owners[slot&slotCellMask-1]; e != nil && e.name == name {
				return e
			}
		}
	}
	return nil
}

// place returns where the slot of an entry is.
func (x *nameIndex) place(e *nameEntry) (bucket uint32, slot int) {
	for probe := range uint32(bucketProbes) {
		bucket = x.behind(e.home, probe)
		for slot, content := range x.buckets[bucket].Slots {
			if content&slotCellMask == uint64(e.cell)+1 {
				return bucket, slot
			}
		}
	}
	panic("datapath: a name is in no bucket that its hash leads to")
}

// match returns what the longest known suffix of a plain name says in a generation, as the programs find
// it: what says nothing is passed over.
func (x *nameIndex) match(name string, generation uint32) (sets lower.NameSets, exact, known bool) {
	hashes := x.key.SuffixHashes(wireText(name))
	if e := x.lookup(name, hashes[0]); e != nil && e.sets[generation].Exact != 0 {
		return e.sets[generation], true, true
	}
	_, above, _ := strings.Cut(name, ".")
	sets, known = x.from(above, hashes[1:], generation)
	return sets, false, known
}

// below returns what is said in a generation of the names below a plain name of which nothing nearer is known.
func (x *nameIndex) below(name string, generation uint32) (sets lower.NameSets, known bool) {
	return x.from(name, x.key.SuffixHashes(wireText(name)), generation)
}

// from returns what the nearest name, from one with these hashes up, says of those below it.
func (x *nameIndex) from(name string, hashes []uint64, generation uint32) (sets lower.NameSets, known bool) {
	for _, hash := range hashes {
		if e := x.lookup(name, hash); e != nil && (e.sets[generation].Below != 0 || e.sets[generation].List != 0) {
			return e.sets[generation], true
		}
		_, name, _ = strings.Cut(name, ".")
	}
	return sets, false
}

// add finds a place for a name where there is room for it. The bucket, which it returns, is changed in the mirror; the
// caller writes it out after the cells.
func (x *nameIndex) add(name string, where roomSearch) (bucket uint32, ok bool, err error) {
	hash := x.key.SuffixHashes(wireText(name))[0]
	bucket, free, ok := x.freeSlot(hash)
	if !ok {
		return 0, false, fmt.Errorf("place name %s: %d buckets of name_index are full: %w", name, bucketProbes, enforce.ErrFull)
	}
	e := &nameEntry{name: name, home: x.bucket(hash, 0)}
	if e.cell, ok = where(x.room.home(hash), e.cells()); !ok {
		return 0, false, nil
	}
	x.own(e, e)
	x.buckets[bucket].Slots[free] = hash&^slotCellMask | uint64(e.cell+1)
	return bucket, true, nil
}

// undo takes back an add that was not written out.
func (x *nameIndex) undo(name string) {
	e := x.find(name)
	bucket, slot := x.place(e)
	x.buckets[bucket].Slots[slot] = 0
	x.own(e, nil)
}

func (x *nameIndex) freeSlot(hash uint64) (bucket uint32, slot int, ok bool) {
	for probe := range uint32(bucketProbes) {
		bucket = x.bucket(hash, probe)
		if slot = slices.Index(x.buckets[bucket].Slots[:], 0); slot >= 0 {
			return bucket, slot, true
		}
	}
	return 0, 0, false
}

// bucket is that which a hash leads to, or a later one.
func (x *nameIndex) bucket(hash uint64, probe uint32) uint32 {
	return x.behind(uint32(uint64(uint32(hash))*uint64(len(x.buckets))>>32), probe) //nolint:gosec // the low bits; below the buckets
}

// behind is so many buckets behind another. The first comes behind the last.
func (x *nameIndex) behind(bucket, ahead uint32) uint32 {
	return (bucket + ahead) % uint32(len(x.buckets))
} //nolint:gosec // fewer than 2^32

// distance is how far behind one bucket another is.
func (x *nameIndex) distance(bucket, other uint32) uint32 {
	return x.behind(other, uint32(len(x.buckets))-bucket) //nolint:gosec // as above
}

// own makes owner the owner of an entry's cells; nil frees them.
func (x *nameIndex) own(e, owner *nameEntry) {
	for i := range uint32(e.cells()) { //nolint:gosec // a few cells
		x.owners[e.cell+i] = owner
		if owner == nil {
			x.room.give(e.cell + i)
		} else {
			x.room.take(e.cell + i)
		}
	}
}

// remove takes a name out and returns the buckets to write, in this order. A program that looks for a
// name stops at a bucket with a free slot, so the place is filled with a name that had to go to a later
// bucket, if there is one: it is there twice for a moment, never nowhere.
func (x *nameIndex) remove(e *nameEntry) []uint32 {
	bucket, place := x.place(e)
	x.own(e, nil)
	changed := []uint32{bucket}
	for {
		from, slot, found := x.overflow(bucket)
		if !found {
			x.buckets[bucket].Slots[place] = 0
			return changed
		}
		x.buckets[bucket].Slots[place] = x.buckets[from].Slots[slot]
		bucket, place = from, slot
		changed = append(changed, bucket)
	}
}

// overflow finds the slot of a name in a later bucket that could be in this one.
func (x *nameIndex) overflow(bucket uint32) (from uint32, slot int, found bool) {
	for ahead := uint32(1); ahead < bucketProbes; ahead++ {
		from = x.behind(bucket, ahead)
		for i, content := range x.buckets[from].Slots {
			if content == 0 {
				continue
			}
			e := x.owners[content&slotCellMask-1]
			if x.distance(e.home, from) >= ahead {
				return from, i, true
			}
		}
	}
	return 0, 0, false
}
