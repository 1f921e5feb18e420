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
	if n.cells == nil {
		n.cells = make(map[string]uint32)
		n.index = make(map[uint32]*bpf.DatapathNameBucket)
	}
	first, known := n.cells[string(wire)]
	if !known {
		first = n.add(wire)
	}
	var cell bpf.DatapathNameCell
	if err := n.datapath.NameCells.Lookup(first, &cell); err != nil {
		n.datapath.t.Fatalf("look up cell %d: %v", first, err)
	}
	cell.Exact[generation], cell.Below[generation] = exact, below
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
	const probes = 4
	for probe := range uint32(probes) {
		at := (uint32(hash) + probe) & (n.buckets - 1)
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
