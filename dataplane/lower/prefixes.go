package lower

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
)

// PrefixClass is a line of a longest-prefix table: the addresses below Prefix, unless a longer prefix
// says otherwise, are of Class. IPv4 prefixes are IPv4-mapped: 96 bits longer.
type PrefixClass struct {
	Prefix netip.Prefix
	Class  Class
}

// mappedIPv4 holds every IPv4 address.
var mappedIPv4 = netip.MustParsePrefix("::ffff:0:0/96")

// lists collects distinct lists of prefixes.
type lists struct {
	number map[string]uint32
	all    [][]netip.Prefix
}

func newLists() *lists { return &lists{number: map[string]uint32{}} }

// add takes in a list; an empty one is none.
func (l *lists) add(prefixes []netip.Prefix) {
	if len(prefixes) == 0 {
		return
	}
	key := listKey(prefixes)
	if _, known := l.number[key]; !known {
		l.number[key] = uint32(len(l.all)) //nolint:gosec // bounded by what a message holds
		l.all = append(l.all, prefixes)
	}
}

func listKey(prefixes []netip.Prefix) string {
	var key []byte
	for _, p := range prefixes {
		address := p.Addr().As16()
		key = append(append(key, address[:]...), byte(mapped(p).Bits()))
	}
	return string(key)
}

// prefixClasses are the classes that the prefixes of some lists make.
type prefixClasses struct {
	lists    *lists
	prefixes []PrefixClass
	members  [][]uint32 // of each class, from 0 on, the numbers of the lists; sorted
}

// classes gives each prefix the lists of all prefixes that contain it, since only the longest is found.
func (l *lists) classes() *prefixClasses {
	owners := map[netip.Prefix][]uint32{}
	for number, prefixes := range l.all {
		for _, p := range prefixes {
			m := mapped(p)
			if _, known := owners[mappedIPv4]; !known && m.Overlaps(mappedIPv4) && m.Bits() < mappedIPv4.Bits() {
				owners[mappedIPv4] = nil // what contains IPv4's part of IPv6 does not mean IPv4
			}
			owners[m] = append(owners[m], uint32(number)) //nolint:gosec // see add
		}
	}
	sorted := make([]netip.Prefix, 0, len(owners))
	for p := range owners {
		sorted = append(sorted, p)
	}
	slices.SortFunc(sorted, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	c := &prefixClasses{lists: l, members: [][]uint32{nil}}
	ids := map[string]Class{"": 0}
	var around []netip.Prefix // those that contain the current one, the longest last
	unions := map[netip.Prefix][]uint32{}
	for _, p := range sorted {
		for len(around) > 0 && !around[len(around)-1].Contains(p.Addr()) {
			around = around[:len(around)-1]
		}
		all := union(owners[p])
		if len(around) > 0 && p != mappedIPv4 {
			all = union(owners[p], unions[around[len(around)-1]])
		}
		unions[p] = all
		around = append(around, p)
		c.prefixes = append(c.prefixes, PrefixClass{p, c.classOf(all, ids)})
	}
	return c
}

func (c *prefixClasses) classOf(members []uint32, ids map[string]Class) Class {
	var key []byte
	for _, m := range members {
		key = binary.LittleEndian.AppendUint32(key, m)
	}
	id, known := ids[string(key)]
	if !known {
		id = Class(len(c.members)) //nolint:gosec // bounded by the prefixes
		ids[string(key)] = id
		c.members = append(c.members, members)
	}
	return id
}

// mapped is a prefix in the form of the tables.
func mapped(p netip.Prefix) netip.Prefix {
	if !p.Addr().Is4() {
		return p.Masked()
	}
	return netip.PrefixFrom(netip.AddrFrom16(p.Addr().As16()), p.Bits()+96).Masked()
}

// union merges sorted lists into a new one.
func union(lists ...[]uint32) []uint32 {
	all := slices.Concat(lists...)
	slices.Sort(all)
	return slices.Compact(all)
}
