package datapath

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/bpf"
)

// cellWindow is how many bytes of a table of cells are looked at at once: what is mapped counts as this process's
// memory.
const cellWindow = 2 << 20

// cellTable is how a table of cells is read: of so many 64-bit words each, one of which has the owner in one half.
type cellTable struct {
	*ebpf.Map
	words int
	owner int    // the word
	shift int    // of the half
	state uint32 // bits of the owner, which are so if there is any
	owned uint32
}

// visit hands on every cell that has an owner, window by window, one behind the other. Each is as it was at one
// moment; the programs go on meanwhile.
func (t cellTable) visit(visit func(cells []uint64) error) error {
	size := t.words * 8
	window := cellWindow / size * size
	for window%unix.Getpagesize() != 0 {
		window += size
	}
	var cells []uint64
	total := int(t.MaxEntries()) * size
	for from := 0; from < total; from += window {
		bytes := min(window, total-from)
		memory, err := unix.Mmap(t.FD(), int64(from), bytes, unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			return fmt.Errorf("map %s into memory: %w", t.Map, err)
		}
		cells = t.read(cells[:0], unsafe.Slice((*uint64)(unsafe.Pointer(&memory[0])), bytes/8)) //nolint:gosec // a page is aligned
		if err := unix.Munmap(memory); err != nil {
			return fmt.Errorf("unmap %s: %w", t.Map, err)
		}
		if err := visit(cells); err != nil {
			return err
		}
	}
	return nil
}

// read appends the cells that have an owner. One that gets another meanwhile is read again, or has none: then it was
// no address's for a moment.
func (t cellTable) read(to, table []uint64) []uint64 {
	const tries = 3
	for at := 0; at+t.words <= len(table); at += t.words {
		cell := table[at : at+t.words]
		for range tries {
			owner := t.ownerOf(cell)
			if owner&t.state != t.owned {
				break
			}
			before := len(to)
			for i := range cell {
				to = append(to, atomic.LoadUint64(&cell[i]))
			}
			if t.ownerOf(cell) == owner {
				break
			}
			to = to[:before]
		}
	}
	return to
}

func (t cellTable) ownerOf(cell []uint64) uint32 {
	return uint32(atomic.LoadUint64(&cell[t.owner]) >> t.shift) //nolint:gosec // half of it
}

// mappingRoom is how many addresses find room in mappings, however they fall.
func (k *kernel) mappingRoom() uint64 { return uint64(k.Mappings.MaxEntries()) * 8 / 15 }

// mappingTable is the table of mappings.
func (k *kernel) mappingTable() cellTable {
	return described().cells(k.Mappings)
}

// eachMapping hands on the cells of mappings, window by window.
func (k *kernel) eachMapping(visit func(cells []bpf.DatapathMapping) error) error {
	return k.mappingTable().visit(func(words []uint64) error {
		if len(words) == 0 {
			return nil
		}
		const size = unsafe.Sizeof(bpf.DatapathMapping{}) / 8
		return visit(unsafe.Slice((*bpf.DatapathMapping)(unsafe.Pointer(&words[0])), uintptr(len(words))/size)) //nolint:gosec // whole cells
	})
}
