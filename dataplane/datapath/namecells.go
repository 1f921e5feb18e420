package datapath

import (
	"errors"
	"fmt"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/dataplane/lower"
)

const (
	cellBytes = int(unsafe.Sizeof(bpf.DatapathNameCell{}))
	cellText  = len(bpf.DatapathNameCell{}.Text)
)

// rawCell is a cell as bytes: one behind the first of a long name is text alone.
type rawCell [cellBytes]byte

func (r *rawCell) record() *bpf.DatapathNameCell {
	return (*bpf.DatapathNameCell)(unsafe.Pointer(r)) //nolint:gosec // same size, and read as the kernel does
}

// encode lays an entry out.
func (e *nameEntry) encode() []rawCell {
	wire := wireText(e.name)
	cells := make([]rawCell, e.cells())
	first := &bpf.DatapathNameCell{Length: uint8(len(wire))} //nolint:gosec // at most 254
	for i, sets := range e.sets {
		first.Exact[i], first.Below[i], first.List[i] = uint32(sets.Exact), uint32(sets.Below), sets.List
	}
	copied := copy(first.Text[:], wire)
	cells[0] = *(*rawCell)(unsafe.Pointer(first)) //nolint:gosec // same size
	for i := 1; i < len(cells); i++ {
		copied += copy(cells[i][:], wire[copied:])
	}
	return cells
}

// write adds an entry's cells to those that are to be written.
func (e *nameEntry) write(cells []uint32, texts []rawCell) ([]uint32, []rawCell) {
	for i, text := range e.encode() {
		cells = append(cells, e.cell+uint32(i)) //nolint:gosec // a few cells
		texts = append(texts, text)
	}
	return cells, texts
}

// readNameIndex makes the mirror of what the maps hold. What a crash left half made is not part of it:
// a cell that no slot names is free, a slot that is not of its cell's name is cleared.
func readNameIndex(key bpf.HashKey, index, cells *ebpf.Map) (*nameIndex, error) {
	x := newNameIndex(key, index.MaxEntries(), cells.MaxEntries())
	if err := readArray(index, x.buckets); err != nil {
		return nil, err
	}
	raw := make([]rawCell, cells.MaxEntries())
	if err := readArray(cells, raw); err != nil {
		return nil, err
	}
	for bucket := range x.buckets {
		clean := true
		for i, slot := range x.buckets[bucket].Slots {
			if slot != 0 && !x.take(uint32(bucket), slot, raw) { //nolint:gosec // a bucket
				x.buckets[bucket].Slots[i], clean = 0, false
			}
		}
		if clean {
			continue
		}
		if err := index.Put(uint32(bucket), &x.buckets[bucket]); err != nil { //nolint:gosec // a bucket
			return nil, fmt.Errorf("mend name_index: %w", err)
		}
	}
	return x, nil
}

func (x *nameIndex) take(bucket uint32, slot uint64, raw []rawCell) bool {
	cell := uint32(slot & slotCellMask)
	if cell == 0 || int(cell) > len(raw) {
		return false
	}
	cell--
	record := raw[cell].record()
	cells := cellsOf(int(record.Length))
	if int(cell)+cells > len(raw) {
		return false
	}
	wire := append([]byte{}, record.Text[:]...)
	for _, more := range raw[int(cell)+1 : int(cell)+cells] {
		wire = append(wire, more[:]...)
	}
	name, ok := textOf(wire[:record.Length])
	if !ok {
		return false
	}
	hash := x.key.SuffixHashes(wire[:record.Length])[0]
	e := &nameEntry{name: name, cell: cell, home: x.bucket(hash, 0)}
	for i := range e.sets {
		e.sets[i] = lower.NameSets{
			Exact: lower.Reference(record.Exact[i]), Below: lower.Reference(record.Below[i]), List: record.List[i],
		}
	}
	if (hash^slot)&^slotCellMask != 0 || x.distance(e.home, bucket) >= bucketProbes || x.lookup(name, hash) != nil {
		return false
	}
	x.own(e, e)
	return true
}

const batch = 4096 // keys to a system call

// readArray fills values with all of an array map.
func readArray[V any](m *ebpf.Map, values []V) error {
	var cursor ebpf.MapBatchCursor
	keys := make([]uint32, batch)
	for done := 0; done < len(values); {
		n, err := m.BatchLookup(&cursor, keys[:min(batch, len(values)-done)], values[done:min(done+batch, len(values))], nil)
		done += n
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read map %s: %w", m, err)
		}
	}
	return nil
}

// cellsOf is how many cells a name of so many bytes takes.
func cellsOf(bytes int) int {
	return 1 + (max(0, bytes-cellText)+cellBytes-1)/cellBytes
}

// cellsOfName is how many cells a plain name takes.
func cellsOfName(name string) int { return cellsOf(wireLength(name)) }

// wireLength is how long the wire form of a plain name is without the root label.
func wireLength(name string) int { return len(name) + 1 }

// wireText is the wire form of a plain name without the root label.
func wireText(name string) []byte {
	wire := make([]byte, 0, wireLength(name))
	for label := range strings.SplitSeq(name, ".") {
		wire = append(wire, byte(len(label)))
		wire = append(wire, label...)
	}
	return wire
}

// textOf is the inverse of wireText; false when the bytes are no such form.
func textOf(wire []byte) (string, bool) {
	var text []byte
	for len(wire) > 0 {
		length := int(wire[0])
		if length == 0 || length >= len(wire) && length != len(wire)-1 {
			return "", false
		}
		if len(text) > 0 {
			text = append(text, '.')
		}
		text = append(text, wire[1:1+length]...)
		wire = wire[1+length:]
	}
	return string(text), len(text) > 0
}
