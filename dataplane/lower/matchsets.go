package lower

import (
	"encoding/binary"
)

// MatchSet names a set of selectors; 0 is the empty set. A selector is the domain list of one rule, or a
// domain set.
type MatchSet uint32

// MaxMatchSet is the highest match set that the kernel's records have room for.
const MaxMatchSet MatchSet = 1<<matchSetBits - 1

const matchSetBits = 28

// interner gives each set of selectors an id that stays, and that never comes to mean another set.
type interner struct {
	next    MatchSet
	ids     map[string]MatchSet
	members map[MatchSet][]uint32
}

const internerSlack = 4096 // unused sets that are not worth a sweep

func newInterner(next MatchSet) interner {
	return interner{next: max(next, 1), ids: map[string]MatchSet{}, members: map[MatchSet][]uint32{}}
}

// intern returns the id of a sorted set, which is not empty. It keeps the slice.
func (in *interner) intern(selectors []uint32) MatchSet {
	key := string(appendSet(nil, selectors))
	if id, known := in.ids[key]; known {
		return id
	}
	id := in.next
	in.next++
	in.ids[key] = id
	in.members[id] = selectors
	return id
}

func (in *interner) restore(id MatchSet, selectors []uint32) {
	in.ids[string(appendSet(nil, selectors))] = id
	in.members[id] = selectors
	in.next = max(in.next, id+1)
}

// sweep forgets sets that no name has, once they are many. A forgotten set that comes back is a new one.
func (in *interner) sweep(used map[MatchSet]groupID) bool {
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
