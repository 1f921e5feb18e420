package datapath

import "math/bits"

// A page of cells is one of memory, which a processor finds by one entry of its tables of pages.
const pageCells = 64

// nameRoom is which cells of name_cells are free. A name begins at its home, which its hash leads to and where the
// programs look before they know where it is, or near it.
type nameRoom struct {
	cells uint32
	free  []uint64 // a word for each page, a bit for each cell
	left  int      // cells that are free
}

func newNameRoom(cells uint32) *nameRoom {
	r := &nameRoom{cells: cells, free: make([]uint64, (cells+pageCells-1)/pageCells)}
	for cell := range cells {
		r.give(cell)
	}
	return r
}

func (r *nameRoom) give(cell uint32) {
	if !r.isFree(cell) {
		r.free[cell/pageCells] |= 1 << (cell % pageCells)
		r.left++
	}
}

func (r *nameRoom) take(cell uint32) {
	if r.isFree(cell) {
		r.free[cell/pageCells] &^= 1 << (cell % pageCells)
		r.left--
	}
}

func (r *nameRoom) isFree(cell uint32) bool { return r.free[cell/pageCells]>>(cell%pageCells)&1 != 0 }

// home is the cell in which a name with this hash begins if it can.
func (r *nameRoom) home(hash uint64) uint32 {
	return uint32(hash >> 32 * uint64(r.cells) >> 32) //nolint:gosec // below cells
}

// begins says in which cells of a page as many in a row begin that are free.
func (r *nameRoom) begins(page uint32, cells int) uint64 {
	free, next := r.free[page], uint64(0)
	if int(page)+1 < len(r.free) {
		next = r.free[page+1]
	}
	begins := free
	for i := 1; i < cells; i++ {
		begins &= free>>i | next<<(pageCells-i)
	}
	return begins
}

// A roomSearch finds room for a name of so many cells, in a row, that has this home.
type roomSearch func(home uint32, cells int) (first uint32, found bool)

// atHome finds room at home alone.
func (r *nameRoom) atHome(home uint32, cells int) (first uint32, found bool) {
	return home, r.begins(home/pageCells, cells)>>(home%pageCells)&1 != 0
}

// near finds room as near a home as there is: there, in its page, the neighbour first, which many processors fetch with
// the line itself, or in a page behind it.
func (r *nameRoom) near(home uint32, cells int) (first uint32, found bool) {
	page := home / pageCells
	if begins := r.begins(page, cells); begins != 0 {
		for away := uint32(0); ; away++ {
			if in := home%pageCells ^ away; begins>>in&1 != 0 {
				return page*pageCells + in, true
			}
		}
	}
	if first, found = r.within(page+1, uint32(len(r.free)), cells); found { //nolint:gosec // pages of cells
		return first, true
	}
	return r.within(0, page, cells)
}

// within finds the first room in pages from one on, up to another.
func (r *nameRoom) within(page, end uint32, cells int) (first uint32, found bool) {
	for ; page < end; page++ {
		if begins := r.begins(page, cells); begins != 0 {
			return page*pageCells + uint32(bits.TrailingZeros64(begins)), true //nolint:gosec // below 64
		}
	}
	return 0, false
}

// packed gives a search that leaves as many cells in a row free as there can be: for names of more cells before those of
// fewer, wherever their homes are.
func (r *nameRoom) packed() roomSearch {
	from, of := uint32(0), 0 // no page before has room for so many
	return func(_ uint32, cells int) (first uint32, found bool) {
		if cells != of {
			from, of = 0, cells
		}
		first, found = r.within(from, uint32(len(r.free)), cells) //nolint:gosec // pages of cells
		from = first / pageCells
		return first, found
	}
}
