package datapath

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/dataplane/enforce"
	"github.com/nameward/nameward/dataplane/lower"
)

const (
	bucketSlots  = 8 // as the array in name_bucket; the compiler checks it
	bucketProbes = 4 // BUCKET_PROBES

	slotCellMask = 1<<24 - 1 // the low bits of a slot: cell + 1; above is the tag

)

var _ [bucketSlots]uint64 = bpf.DatapathNameBucket{}.Slots

// nameIndex is a mirror of name_index and name_cells: which names are in them, where, and what they say of
// each name in each generation.
type nameIndex struct {
	key     bpf.HashKey
	buckets []bpf.DatapathNameBucket
	owners  []*nameEntry // of each cell; nil: free
	search  int          // where to look for free cells next
	entries map[string]*nameEntry
	empty   map[string]bool // entries that say nothing in any generation: to be freed
}

// nameEntry is a name in the index. A name with more text than a cell holds has several in a row.
type nameEntry struct {
	cell   uint32
	cells  int
	home   uint32 // bucket that the hash names
	bucket uint32 // bucket that it is in
	slot   uint64
	sets   [2]lower.NameSets
}

func newNameIndex(key bpf.HashKey, buckets, cells uint32) *nameIndex {
	return &nameIndex{
		key:     key,
		buckets: make([]bpf.DatapathNameBucket, buckets),
		owners:  make([]*nameEntry, cells),
		entries: map[string]*nameEntry{},
		empty:   map[string]bool{},
	}
}

// match returns what the longest known suffix of a plain name says in a generation, as the programs find
// it: what says nothing is passed over.
func (x *nameIndex) match(name string, generation uint32) (sets lower.NameSets, exact, known bool) {
	if e := x.entries[name]; e != nil && e.sets[generation].Exact != 0 {
		return e.sets[generation], true, true
	}
	for {
		_, parent, found := strings.Cut(name, ".")
		if !found {
			return sets, false, false
		}
		name = parent
		if e := x.entries[name]; e != nil && (e.sets[generation].Below != 0 || e.sets[generation].List != 0) {
			return e.sets[generation], false, true
		}
	}
}

// add finds a place for a name. The bucket is changed in the mirror; the caller writes it out after
// the cells.
func (x *nameIndex) add(name string) (*nameEntry, error) {
	wire := wireText(name)
	hash := x.key.SuffixHashes(wire)[0]
	bucket, free, ok := x.freeSlot(hash)
	if !ok {
		return nil, fmt.Errorf("place name %s: %d buckets of name_index are full: %w", name, bucketProbes, enforce.ErrFull)
	}
	cells := cellsOf(len(wire))
	e := &nameEntry{cells: cells, home: x.bucket(hash, 0), bucket: bucket}
	if !x.allocate(e) {
		return nil, fmt.Errorf("place name %s: all %d cells of name_cells are taken: %w", name, len(x.owners), enforce.ErrFull)
	}
	e.slot = hash&^slotCellMask | uint64(e.cell+1)
	x.buckets[bucket].Slots[free] = e.slot
	x.entries[name] = e
	return e, nil
}

// undo takes back an add that was not written out.
func (x *nameIndex) undo(name string) {
	e := x.entries[name]
	delete(x.entries, name)
	x.own(e, nil)
	slots := &x.buckets[e.bucket].Slots
	slots[slices.Index(slots[:], e.slot)] = 0
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

func (x *nameIndex) bucket(hash uint64, probe uint32) uint32 {
	return (uint32(hash) + probe) & x.mask() //nolint:gosec // the low bits
}

func (x *nameIndex) mask() uint32 { return uint32(len(x.buckets) - 1) } //nolint:gosec // a power of two

// allocate gives an entry its cells, in a row.
func (x *nameIndex) allocate(e *nameEntry) bool {
	run := 0
	for range len(x.owners) + e.cells {
		if x.search == len(x.owners) {
			x.search, run = 0, 0
		}
		x.search++
		if x.owners[x.search-1] != nil {
			run = 0
			continue
		}
		if run++; run == e.cells {
			e.cell = uint32(x.search - e.cells) //nolint:gosec // a cell
			x.own(e, e)
			return true
		}
	}
	return false
}

// own makes owner the owner of an entry's cells.
func (x *nameIndex) own(e, owner *nameEntry) {
	for i := range e.cells {
		x.owners[int(e.cell)+i] = owner
	}
}

// remove takes a name out and returns the buckets to write, in this order. A program that looks for a
// name stops at a bucket with a free slot, so the place is filled with a name that had to go to a later
// bucket, if there is one: it is there twice for a moment, never nowhere.
func (x *nameIndex) remove(name string) []uint32 {
	e := x.entries[name]
	delete(x.entries, name)
	x.own(e, nil)
	changed := []uint32{e.bucket}
	for bucket, slot := e.bucket, e.slot; ; {
		place := slices.Index(x.buckets[bucket].Slots[:], slot)
		moved := x.overflow(bucket)
		if moved == nil {
			x.buckets[bucket].Slots[place] = 0
			return changed
		}
		x.buckets[bucket].Slots[place] = moved.slot
		bucket, slot, moved.bucket = moved.bucket, moved.slot, bucket
		changed = append(changed, bucket)
	}
}

// overflow finds a name in a later bucket that could be in this one.
func (x *nameIndex) overflow(bucket uint32) *nameEntry {
	for ahead := uint32(1); ahead < bucketProbes; ahead++ {
		from := (bucket + ahead) & x.mask()
		for _, slot := range x.buckets[from].Slots {
			if slot == 0 {
				continue
			}
			e := x.owners[slot&slotCellMask-1]
			if distance := (from - e.home) & x.mask(); distance >= ahead {
				return e
			}
		}
	}
	return nil
}
