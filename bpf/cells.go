package bpf

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"
)

// RoomError says that something would take more room than there is.
type RoomError struct {
	Limit int
	Of    string // what there is room for
}

// Error returns the limit, and of what it is one.
func (e *RoomError) Error() string { return fmt.Sprintf("more than %d %s", e.Limit, e.Of) }

// MaxPositions is how many rules of a node can be told apart by their positions.
const MaxPositions = 1 << (64 - DatapathVerdictLimitVERDICT_POSITION_SHIFT)

// smallestPart is as how many bits of a hash are used at least: of one page of cells.
const smallestPart = 6

// VerdictKey names the rules of a workload that one component of a destination can match.
type VerdictKey struct {
	Workload  uint32
	Component DatapathComponent
}

// VerdictEntry is a rule, or one range of its ports. Without a protocol ports do not count, and the last is 65535.
type VerdictEntry struct {
	Position            uint32 // below MaxPositions
	FirstPort, LastPort uint16
	Protocol            uint8
	Flags               DatapathVerdictFlag
}

func (e VerdictEntry) word() uint64 {
	return uint64(e.Position)<<DatapathVerdictLimitVERDICT_POSITION_SHIFT |
		uint64(e.Flags)<<DatapathVerdictLimitVERDICT_FLAGS_SHIFT |
		uint64(e.Protocol)<<DatapathVerdictLimitVERDICT_PROTOCOL_SHIFT |
		uint64(e.LastPort)<<DatapathVerdictLimitVERDICT_LAST_PORT_SHIFT | uint64(e.FirstPort)
}

// LayVerdicts gives the cells of a generation's part of verdicts that are in use, by key of the map, and how many
// homes it has, as a power of two. The same verdicts give the same cells, and others mostly the same where they are
// the same. The error is a *RoomError.
func LayVerdicts(generation, seed uint32, verdicts map[VerdictKey][]VerdictEntry) (map[uint32]DatapathVerdict, uint8, error) {
	return layVerdicts(part{
		generation: generation, most: uint32(DatapathVerdictLimitVERDICT_CELLS), chain: int(DatapathVerdictLimitVERDICT_CHAIN),
	}, seed, verdicts)
}

func layVerdicts(p part, seed uint32, verdicts map[VerdictKey][]VerdictEntry) (map[uint32]DatapathVerdict, uint8, error) {
	cells := 0
	for _, entries := range verdicts {
		cells += verdictCells(entries)
	}
	p.size(cells)
	keys := make([]homed[VerdictKey], 0, len(verdicts))
	for key := range verdicts {
		keys = append(keys, homed[VerdictKey]{p.home(hashVerdict(seed, key)), key})
	}
	// What goes on for several cells comes last, so that others need not pass it.
	slices.SortFunc(keys, func(a, b homed[VerdictKey]) int {
		return cmp.Or(cmp.Compare(a.home, b.home), cmp.Compare(verdictCells(verdicts[a.key]), verdictCells(verdicts[b.key])),
			cmp.Compare(a.key.Workload, b.key.Workload), cmp.Compare(a.key.Component, b.key.Component))
	})
	var chains []chain[DatapathVerdict]
	for _, h := range keys {
		chains = inChain(chains, h.home, layVerdict(h.key, verdicts[h.key])...)
	}
	laid, err := layChains(p, chains)
	return laid, p.bits, err
}

func verdictCells(entries []VerdictEntry) int {
	const room = len(DatapathVerdict{}.Entries)
	return max((len(entries)+room-1)/room, 1)
}

// layVerdict fills cells with the entries of one key.
func layVerdict(key VerdictKey, entries []VerdictEntry) []DatapathVerdict {
	cells := make([]DatapathVerdict, verdictCells(entries))
	for i := range cells {
		c := &cells[i]
		c.Workload, c.Component = key.Workload, key.Component
		n := min(len(entries), len(c.Entries))
		for j, e := range entries[:n] {
			c.Entries[j] = e.word()
		}
		if entries = entries[n:]; len(entries) > 0 {
			c.Flags = DatapathVerdictFlagVERDICT_MORE
		}
	}
	return cells
}

// part is one generation's part of a map of cells.
type part struct {
	generation uint32
	most       uint32 // cells that it has
	chain      int    // cells that one chain may have
	bits       uint8  // so many cells are homes, as a power of two
}

// size has homes for twice so many full cells, if there is room, and no more: four of five keys or more are at home then,
// the others mostly in the same page, and all together in as few pages as that takes.
func (p *part) size(cells int) {
	wanted := bits.Len(uint(max(2*cells-1, 0))) //nolint:gosec // not negative
	p.bits = uint8(min(max(wanted, smallestPart), bits.Len32(p.most)-1))
}

func (p *part) home(hash uint64) uint32 { return uint32(hash >> 32 & (1<<p.bits - 1)) } //nolint:gosec // fewer bits

// first is the key of its first cell.
func (p *part) first() uint32 { return p.generation * p.most }

// homed is a key and its home in the part.
type homed[K any] struct {
	home uint32
	key  K
}

// chain is the cells of the keys of one home.
type chain[C any] struct {
	home  uint32
	cells []C
}

// inChain adds cells to the chain of a home, which is the last one or a new one.
func inChain[C any](chains []chain[C], home uint32, cells ...C) []chain[C] {
	if last := len(chains) - 1; last >= 0 && chains[last].home == home {
		chains[last].cells = append(chains[last].cells, cells...)
		return chains
	}
	return append(chains, chain[C]{home, cells})
}

// lastCell is that of the chain of a home, if it is the last one.
func lastCell[C any](chains []chain[C], home uint32) *C {
	if last := len(chains) - 1; last >= 0 && chains[last].home == home {
		return &chains[last].cells[len(chains[last].cells)-1]
	}
	return nil
}

type linked[C any] interface {
	*C
	link(role DatapathCellRole, next uint32)
}

func (v *DatapathVerdict) link(role DatapathCellRole, next uint32) { v.Role, v.Next = role, next }

// layChains gives each cell of each chain its place.
func layChains[C any, P linked[C]](p part, chains []chain[C]) (map[uint32]C, error) {
	free := newFreeCells(p)
	for _, c := range chains {
		free.take(c.home)
		if len(c.cells) > p.chain {
			return nil, &RoomError{p.chain, "cells of one home"}
		}
	}
	laid := make(map[uint32]C, len(chains))
	for _, c := range chains {
		at, role := c.home, DatapathCellRoleCELL_HOME
		for i := range c.cells {
			next := uint32(0)
			if i+1 < len(c.cells) {
				away, ok := free.near(at)
				if !ok {
					return nil, &RoomError{int(p.most), "cells of one rule set"}
				}
				free.take(away)
				next = p.first() + away
			}
			P(&c.cells[i]).link(role, next)
			laid[p.first()+at] = c.cells[i]
			at, role = next-p.first(), DatapathCellRoleCELL_AWAY
		}
	}
	return laid, nil
}

// freeCells are the cells of a part that are nobody's home and not yet in use. The first one is never: to lead to it
// would be to lead to none.
type freeCells struct {
	taken  []bool
	search int
}

func newFreeCells(p part) *freeCells {
	f := &freeCells{taken: make([]bool, 1<<p.bits)}
	f.take(0)
	return f
}

func (f *freeCells) take(cell uint32) { f.taken[cell] = true }

// near finds one in the same page, the neighbour first, which many processors fetch with the line itself; or any.
func (f *freeCells) near(cell uint32) (uint32, bool) {
	for away := uint32(1); away < 1<<smallestPart; away++ {
		if !f.taken[cell^away] {
			return cell ^ away, true
		}
	}
	for ; f.search < len(f.taken); f.search++ {
		if !f.taken[f.search] {
			return uint32(f.search), true //nolint:gosec // a cell
		}
	}
	return 0, false
}

// mixCell is mix_cell of cells.h.
func mixCell(hash uint64) uint64 {
	hash = (hash ^ hash>>30) * cellMix1
	return (hash ^ hash>>27) * cellMix2
}

const (
	cellMix1 = 0xbf58476d1ce4e5b9
	cellMix2 = 0x94d049bb133111eb
)

func hashVerdict(seed uint32, key VerdictKey) uint64 {
	return mixCell((uint64(key.Workload)<<32 | uint64(key.Component)) + uint64(seed)*cellMix1)
}
