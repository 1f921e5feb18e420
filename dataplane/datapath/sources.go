package datapath

import (
	"errors"
	"slices"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/dataplane/lower"
)

// laySources puts sources into hosts. What has more lengths than the programs look for one after the other is in the
// trie; and all prefixes are, where hosts has no room for them. So what is in hosts is longer than what is in the trie.
func (g *generation) laySources(classes []lower.PrefixClass, number, seed uint32) error {
	value := func(c lower.PrefixClass) bpf.DatapathSourceClass {
		key := bpf.DatapathWorkloadKey{Generation: number, Origin: bpf.DatapathOriginORIGIN_FORWARDED, Source: classOf(c)}
		return bpf.DatapathSourceClass{Class: key.Source, Workload: g.workloads[key]}
	}
	var room *bpf.RoomError
	inHosts, inTrie := splitSources(classes, bpf.MostLengths)
	hosts, err := bpf.LayHosts(number, seed, hostClasses(inHosts, value))
	if errors.As(err, &room) {
		inHosts, inTrie = splitSources(classes, 0)
		hosts, err = bpf.LayHosts(number, seed, hostClasses(inHosts, value))
	}
	if err != nil {
		return err
	}
	g.hosts, g.sources = hosts.Cells, prefixes(inTrie, number, value)
	hosts.Describe(&g.flags)
	return nil
}

// splitSources takes apart whole addresses with prefixes of so many lengths of each family, the longest, and what is
// shorter. In hosts each family is looked up by itself; in the trie a prefix of no class keeps IPv4 apart from those of
// IPv6 around it.
func splitSources(classes []lower.PrefixClass, lengths int) (longest, shorter []lower.PrefixClass) {
	shortest := map[bool]uint8{true: shortestOf(classes, true, lengths), false: shortestOf(classes, false, lengths)}
	var apart []lower.PrefixClass
	for _, c := range classes {
		switch s := sourceOf(c); {
		case c.Class == 0:
			apart = append(apart, c)
		case s.Bits >= shortest[s.IPv4()]:
			longest = append(longest, c)
		default:
			shorter = append(shorter, c)
		}
	}
	if len(shorter) > 0 {
		shorter = append(shorter, apart...)
	}
	return longest, shorter
}

// shortestOf is the last of so many lengths that the sources of a family have, from whole addresses on.
func shortestOf(classes []lower.PrefixClass, ipv4 bool, lengths int) uint8 {
	var found []uint8
	for _, c := range classes {
		if s := sourceOf(c); c.Class != 0 && s.IPv4() == ipv4 && !slices.Contains(found, s.Bits) {
			found = append(found, s.Bits)
		}
	}
	slices.Sort(found)
	if len(found) <= lengths {
		return 0
	}
	if lengths == 0 {
		return wholeAddress
	}
	return found[len(found)-lengths]
}

const wholeAddress = 128 // bits

func sourceOf(c lower.PrefixClass) bpf.Source {
	return bpf.Source{Address: address(c.Prefix.Addr()), Bits: uint8(c.Prefix.Bits())} //nolint:gosec // at most 128
}

func hostClasses(classes []lower.PrefixClass, value func(lower.PrefixClass) bpf.DatapathSourceClass) map[bpf.Source]bpf.DatapathSourceClass {
	hosts := make(map[bpf.Source]bpf.DatapathSourceClass, len(classes))
	for _, c := range classes {
		hosts[sourceOf(c)] = value(c)
	}
	return hosts
}
