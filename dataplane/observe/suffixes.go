package observe

import (
	"hash/maphash"
	"slices"
	"strings"
)

// suffixIndex finds the entries with an owner at or below a name. It is a flat list to run through,
// since a change of the rules names few and the table holds many: what a run costs is a few bytes for
// each suffix, without a look at any name.
type suffixIndex struct {
	seed    maphash.Seed
	hashes  []uint32
	entries []*entry
}

func newSuffixIndex() suffixIndex { return suffixIndex{seed: maphash.MakeSeed()} }

func (x *suffixIndex) hash(name string) uint32 {
	return uint32(maphash.String(x.seed, name)) //nolint:gosec // the low bits
}

// add takes in every suffix of every name that the entry has as an owner.
func (x *suffixIndex) add(e *entry) {
	if labels := e.labels(); cap(e.suffixes) < labels {
		e.suffixes = make([]int32, 0, labels)
	}
	x.addName(e, e.domain.String())
	for _, name := range e.chain {
		x.addName(e, name.String())
	}
	for _, a := range e.formerAliases() {
		x.addName(e, a.Name.String())
	}
}

// labels is how many labels the names have together; a few more where dots are escaped.
func (e *entry) labels() int {
	count := 1 + strings.Count(e.domain.String(), ".")
	for _, name := range e.chain {
		count += 1 + strings.Count(name.String(), ".")
	}
	for _, a := range e.formerAliases() {
		count += 1 + strings.Count(a.Name.String(), ".")
	}
	return count
}

func (x *suffixIndex) addName(e *entry, name string) {
	for found := true; found; _, name, found = strings.Cut(name, ".") {
		e.suffixes = append(e.suffixes, int32(len(x.hashes))) //nolint:gosec // bounded by the table
		x.hashes = append(x.hashes, x.hash(name))
		x.entries = append(x.entries, e)
	}
}

func (x *suffixIndex) remove(e *entry) {
	for len(e.suffixes) > 0 {
		place := e.suffixes[len(e.suffixes)-1]
		e.suffixes = e.suffixes[:len(e.suffixes)-1]
		last := int32(len(x.hashes) - 1) //nolint:gosec // bounded by the table
		if place != last {
			moved := x.entries[last]
			x.hashes[place], x.entries[place] = x.hashes[last], moved
			moved.suffixes[slices.Index(moved.suffixes, last)] = place
		}
		x.entries[last] = nil
		x.hashes, x.entries = x.hashes[:last], x.entries[:last]
	}
}

// below returns the entries with an owner at or below one of the names, and perhaps a few others.
func (x *suffixIndex) below(names map[string]bool) map[*entry]bool {
	wanted := make(map[uint32]bool, len(names))
	var sieve [1 << 10]uint64 // a bit for the low 16 bits of each hash: most are sifted out here
	for name := range names {
		h := x.hash(name)
		wanted[h] = true
		sieve[h>>6&(1<<10-1)] |= 1 << (h & 63)
	}
	found := map[*entry]bool{}
	for i, h := range x.hashes {
		if sieve[h>>6&(1<<10-1)]&(1<<(h&63)) != 0 && wanted[h] {
			found[x.entries[i]] = true
		}
	}
	return found
}
