package bpftest

import (
	"strings"

	"github.com/nameward/nameward/bpf"
)

// names fills name_index and name_cells: the plainest table that the programs can read, written once
// and never changed.
type names struct {
	datapath *Datapath
	buckets  uint32
	index    map[uint32]*bpf.DatapathNameBucket
	cells    map[string]uint32 // first cell by name
	next     uint32
}

// Pattern gives a name of the table its match sets in one generation: of the name itself, and of every
// name below it. 0 is none.
func (d *Datapath) Pattern(generation uint32, name string, exact, below uint32) {
	d.t.Helper()
	d.names.put(generation, Wire(name), exact, below)
}

// Common puts a match set at a place of a generation's common ones, from 1 on, and gives what refers to it there.
func (d *Datapath) Common(generation, place, matchSet uint32) (reference uint32) {
	d.t.Helper()
	var common bpf.DatapathCommonMatchSets
	if err := d.CommonSets.Lookup(generation, &common); err != nil {
		d.t.Fatalf("look up common match sets: %v", err)
	}
	common.Sets[place] = matchSet
	d.Put(d.CommonSets, generation, common)
	return place << bpf.DatapathMappingLimitMAPPING_MATCH_SET_BITS
}

// General puts a general pattern at a place of a generation's table, with its `*` as the form has it,
// the base behind it and the head before it, both without dots at their ends. The next place of its list
// is 0 for none.
func (d *Datapath) General(generation, place uint32, pattern bpf.DatapathGeneralPattern, head, prefix, suffix, base string) {
	d.t.Helper()
	pattern.HeadLabels, pattern.BaseLabels = labels(head), labels(base)
	if head != "" {
		pattern.HeadBytes = uint8(copy(pattern.Text[:], Wire(head)))
	}
	pattern.PrefixBytes = uint8(copy(pattern.Text[pattern.HeadBytes:], prefix))
	pattern.SuffixBytes = uint8(copy(pattern.Text[int(pattern.HeadBytes)+len(prefix):], suffix))
	d.Put(d.Patterns, generation*uint32(bpf.DatapathGeneralLimitGENERAL_PATTERNS)+place-1, pattern)
}

func labels(name string) uint8 {
	if name == "" {
		return 0
	}
	return uint8(strings.Count(name, ".") + 1)
}

// List says from which place on of the table the names below a name of the index are held against
// general patterns; those below none, if the name is empty. 0 is none.
func (d *Datapath) List(generation uint32, name string, place uint16) {
	d.t.Helper()
	if name != "" {
		first := d.names.cell(Wire(name))
		d.names.change(first, func(cell *bpf.DatapathNameCell) { cell.List[generation] = place })
		return
	}
	d.whole(generation, func(whole *bpf.DatapathGenerationFlags) { whole.List = place })
}

// Every gives a generation the match set of every name. 0 is none.
func (d *Datapath) Every(generation uint32, matchSet uint32) {
	d.t.Helper()
	d.whole(generation, func(whole *bpf.DatapathGenerationFlags) { whole.Every = matchSet })
}

func (d *Datapath) whole(generation uint32, edit func(*bpf.DatapathGenerationFlags)) {
	d.t.Helper()
	var whole bpf.DatapathGenerationFlags
	if err := d.Generations.Lookup(generation, &whole); err != nil {
		d.t.Fatalf("look up generation %d: %v", generation, err)
	}
	edit(&whole)
	d.Put(d.Generations, generation, whole)
}

// Wire gives a name in canonical wire form without the root label. Dots separate labels.
func Wire(name string) []byte {
	var wire []byte
	for label := range strings.SplitSeq(strings.ToLower(strings.TrimSuffix(name, ".")), ".") {
		wire = append(append(wire, byte(len(label))), label...)
	}
	return wire
}

func (n *names) put(generation uint32, wire []byte, exact, below uint32) {
	n.datapath.t.Helper()
	n.change(n.cell(wire), func(cell *bpf.DatapathNameCell) {
		cell.Exact[generation], cell.Below[generation] = exact, below
	})
}

// cell gives the first cell of a name, which is added if it is not there.
func (n *names) cell(wire []byte) uint32 {
	n.datapath.t.Helper()
	if n.cells == nil {
		n.cells = make(map[string]uint32)
		n.index = make(map[uint32]*bpf.DatapathNameBucket)
	}
	if first, known := n.cells[string(wire)]; known {
		return first
	}
	return n.add(wire)
}

func (n *names) change(first uint32, edit func(*bpf.DatapathNameCell)) {
	n.datapath.t.Helper()
	var cell bpf.DatapathNameCell
	if err := n.datapath.NameCells.Lookup(first, &cell); err != nil {
		n.datapath.t.Fatalf("look up cell %d: %v", first, err)
	}
	edit(&cell)
	n.datapath.Put(n.datapath.NameCells, first, cell)
}

func (n *names) add(wire []byte) uint32 {
	n.datapath.t.Helper()
	first := n.next
	cell := bpf.DatapathNameCell{Length: uint8(len(wire))}
	rest := wire[copy(cell.Text[:], wire):]
	n.datapath.Put(n.datapath.NameCells, n.next, cell)
	n.next++
	for len(rest) > 0 {
		var more [64]byte
		rest = rest[copy(more[:], rest):]
		n.datapath.Put(n.datapath.NameCells, n.next, more)
		n.next++
	}
	n.link(Key.SuffixHashes(wire)[0], first)
	n.cells[string(wire)] = first
	return first
}

func (n *names) link(hash uint64, cell uint32) {
	n.datapath.t.Helper()
	const probes = 10
	for probe := range uint32(probes) {
		at := (uint32(uint64(uint32(hash))*uint64(n.buckets)>>32) + probe) % n.buckets
		bucket := n.index[at]
		if bucket == nil {
			bucket = &bpf.DatapathNameBucket{}
			n.index[at] = bucket
		}
		for i, slot := range bucket.Slots {
			if slot == 0 {
				bucket.Slots[i] = hash&^0xffffff | uint64(cell+1)
				n.datapath.Put(n.datapath.NameIndex, at, *bucket)
				return
			}
		}
	}
	n.datapath.t.Fatal("no room in the name index: load with more buckets")
}

// ForgetNames takes all patterns away from both generations.
func (d *Datapath) ForgetNames() {
	d.t.Helper()
	for at := range d.names.index {
		d.Put(d.NameIndex, at, bpf.DatapathNameBucket{})
	}
	d.names.index, d.names.cells, d.names.next = nil, nil, 0
	for generation := range uint32(2) {
		d.whole(generation, func(whole *bpf.DatapathGenerationFlags) { whole.List, whole.Every = 0, 0 })
	}
}
