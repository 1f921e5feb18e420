package bpf

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"maps"
	"math/bits"
	"slices"
)

// Source is a prefix by which a policy selects, a whole address or a shorter one. What it does not count is zero.
type Source struct {
	Address DatapathAddress
	Bits    uint8 // of 128: IPv4 is mapped
}

// MostLengths is how many lengths the sources of one family in hosts may have.
const MostLengths = len(DatapathSourceFamily{}.Lengths)

// length is as the programs have it, which take 0 for none.
func (s Source) length() uint8 { return s.Bits + 1 }

// IPv4 reports whether it holds addresses of IPv4 alone.
func (s Source) IPv4() bool {
	return s.Bits >= 96 && bytes.HasPrefix(s.Address.Bytes[:], []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255})
}

// Hosts is a generation's part of hosts, as far as it is in use, and what the programs find it by.
type Hosts struct {
	Cells      map[uint32]DatapathHostCell // by key of the map
	bits       uint8                       // so many cells are homes, as a power of two
	ipv4, ipv6 DatapathSourceFamily
}

// Describe says how they are found, but for the seed.
func (h *Hosts) Describe(whole *DatapathGenerationFlags) {
	whole.HostBits, whole.Ipv4, whole.Ipv6 = h.bits, h.ipv4, h.ipv6
}

// LayHosts lays out a generation's part of hosts. The same sources give the same cells. The error is a *RoomError.
func LayHosts(generation, seed uint32, sources map[Source]DatapathSourceClass) (*Hosts, error) {
	return layHosts(part{
		generation: generation, most: uint32(DatapathHostLimitHOST_CELLS), chain: int(DatapathHostLimitHOST_CHAIN),
	}, seed, sources)
}

func layHosts(p part, seed uint32, sources map[Source]DatapathSourceClass) (*Hosts, error) {
	p.size((len(sources) + 1) / len(DatapathHostCell{}.Addresses))
	h := &Hosts{bits: p.bits}
	if err := h.addFamilies(sources); err != nil {
		return nil, err
	}
	keys := make([]homed[Source], 0, len(sources))
	for source := range sources {
		keys = append(keys, homed[Source]{p.home(hashHost(seed, source)), source})
	}
	slices.SortFunc(keys, func(a, b homed[Source]) int {
		return cmp.Or(cmp.Compare(a.home, b.home), cmp.Compare(b.key.Bits, a.key.Bits), bytes.Compare(a.key.Address.Bytes[:], b.key.Address.Bytes[:]))
	})
	var chains []chain[DatapathHostCell]
	for _, k := range keys {
		if cell := lastCell(chains, k.home); cell != nil && cell.put(k.key, sources[k.key]) {
			continue
		}
		var cell DatapathHostCell
		cell.put(k.key, sources[k.key])
		chains = inChain(chains, k.home, cell)
	}
	var err error
	h.Cells, err = layChains(p, chains)
	return h, err
}

func (h *Hosts) addFamilies(sources map[Source]DatapathSourceClass) (err error) {
	var ipv4, ipv6 []Source
	for s := range sources {
		if s.IPv4() {
			ipv4 = append(ipv4, s)
		} else {
			ipv6 = append(ipv6, s)
		}
	}
	if h.ipv4, err = familyOf(ipv4, 8); err != nil {
		return err
	}
	h.ipv6, err = familyOf(ipv6, 0)
	return err
}

// familyOf says which lengths the sources of a family have, and what is the same of all in a word of their addresses.
func familyOf(sources []Source, word int) (f DatapathSourceFamily, err error) {
	found := map[uint8]bool{}
	var first uint64
	same := 64
	for i, s := range sources {
		found[s.length()] = true
		value := binary.BigEndian.Uint64(s.Address.Bytes[word:])
		if i == 0 {
			first = value
		}
		same = min(same, bits.LeadingZeros64(value^first), int(s.Bits)-8*word)
	}
	if len(found) > MostLengths {
		return f, &RoomError{MostLengths, "lengths of prefixes"}
	}
	copy(f.Lengths[:], slices.SortedFunc(maps.Keys(found), func(a, b uint8) int { return cmp.Compare(b, a) }))
	if len(sources) > 0 {
		f.Bits = uint8(same) //nolint:gosec // at most 64
		var bytes [8]byte
		binary.BigEndian.PutUint64(bytes[:], first&^(1<<(64-same)-1))
		f.Word = binary.LittleEndian.Uint64(bytes[:])
	}
	return f, nil
}

// put takes a source into a free slot, if there is one.
func (c *DatapathHostCell) put(source Source, class DatapathSourceClass) bool {
	free := slices.Index(c.Lengths[:], 0)
	if free < 0 {
		return false
	}
	c.Lengths[free], c.Addresses[free], c.Classes[free] = source.length(), source.Address, class
	return true
}

func (c *DatapathHostCell) link(role DatapathCellRole, next uint32) { c.Role, c.Next = role, next }

func hashHost(seed uint32, source Source) uint64 {
	first, second := binary.LittleEndian.Uint64(source.Address.Bytes[:]), binary.LittleEndian.Uint64(source.Address.Bytes[8:])
	return mixCell((mixCell(first+uint64(seed)<<32) ^ second) + uint64(source.length())*cellMix1)
}
