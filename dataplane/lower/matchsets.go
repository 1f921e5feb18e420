package lower

import (
	"encoding/binary"
	"slices"
)

// MatchSet names a set of selectors; 0 is the empty set. A selector is the domain list of one rule, or a
// domain set.
type MatchSet uint32

// MaxMatchSet is the highest match set that the kernel's records have room for.
const MaxMatchSet MatchSet = 1<<28 - 1

// interner gives each set of selectors an id that stays, and that never comes to mean another set.
type interner struct {
	next    MatchSet
	ids     map[string]MatchSet
	members map[MatchSet][]uint32
	key     []byte
}

const internerSlack = 4096 // unused sets that are not worth a sweep

func newInterner(next MatchSet) interner {
	return interner{next: max(next, 1), ids: map[string]MatchSet{}, members: map[MatchSet][]uint32{}}
}

// intern returns the id of a sorted set.
func (in *interner) intern(selectors []uint32) MatchSet {
	if len(selectors) == 0 {
		return 0
	}
	in.key = appendSet(in.key[:0], selectors)
	if id, known := in.ids[string(in.key)]; known {
		return id
	}
	id := in.next
	in.next++
	in.ids[string(in.key)] = id
	in.members[id] = slices.Clone(selectors)
	return id
}

func (in *interner) restore(id MatchSet, selectors []uint32) {
	in.ids[string(appendSet(nil, selectors))] = id
	in.members[id] = selectors
	in.next = max(in.next, id+1)
}

// sweep forgets sets that no name has, once they are many. A forgotten set that comes back is a new one.
func (in *interner) sweep(used map[MatchSet]int) bool {
	if len(in.members) <= 2*len(used)+internerSlack {
		return false
	}
	for id, selectors := range in.members {
		if used[id] == 0 {
			delete(in.members, id)
			delete(in.ids, string(appendSet(nil, selectors)))
		}
	}
	return true
}

func appendSet(key []byte, selectors []uint32) []byte {
	for _, s := range selectors {
		key = binary.LittleEndian.AppendUint32(key, s)
	}
	return key
}

// union merges sorted sets into a new one.
func union(sets ...[]uint32) []uint32 {
	var all []uint32
	for _, set := range sets {
		all = append(all, set...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}
