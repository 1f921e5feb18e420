package lower

import (
	"slices"
	"unique"
)

// groupID names a group; 0 is that of names which match nothing.
type groupID uint32

// group is what has the same lists: names, names below a name, and general patterns. Lists stay while the ids of
// their selectors change, and with them the match set.
type group struct {
	lists []uint32 // sorted
	set   MatchSet
	used  int   // by how many
	place uint8 // of a common set; 0: none
}

// groups gives each set of lists a group.
type groups struct {
	byLists map[string]groupID
	bySet   map[MatchSet]groupID // of those that are used
	all     []group              // by id
	free    []groupID
	common  CommonSets
	places  [len(CommonSets{})]groupID // whose set is at each place of common
	ids     map[uint32]uint32          // of the selector that is in the place of each list
	many    int                        // names, from which on a group has a place
	key     []byte
	scratch []uint32
}

func newGroups() groups {
	return groups{byLists: map[string]groupID{}, bySet: map[MatchSet]groupID{}, all: make([]group, 1), ids: map[uint32]uint32{}, many: manyNames}
}

func (g *groups) set(id groupID) MatchSet { return g.all[id].set }

func (g *groups) reference(id groupID) Reference {
	if place := g.all[id].place; place != 0 {
		return Reference(place) << matchSetBits
	}
	return Reference(g.all[id].set)
}

// union returns the group of a list's selectors and of others, in any order.
func (g *groups) union(own selectors, others []uint32) groupID {
	if len(others) == 0 {
		return g.of(own.key())
	}
	g.scratch = own.appendTo(append(g.scratch[:0], others...))
	slices.Sort(g.scratch)
	g.key = appendSet(g.key[:0], slices.Compact(g.scratch))
	return g.of(string(g.key))
}

// of returns the group of a sorted set of lists.
func (g *groups) of(key string) groupID {
	if key == "" {
		return 0
	}
	if id, known := g.byLists[key]; known {
		return id
	}
	id := groupID(len(g.all)) //nolint:gosec // no more than names
	if last := len(g.free) - 1; last >= 0 {
		id, g.free = g.free[last], g.free[:last]
	} else {
		g.all = append(g.all, group{})
	}
	g.all[id] = group{lists: selectors{unique.Make(key)}.appendTo(nil)}
	g.byLists[key] = id
	return id
}

func (g *groups) use(id groupID, by int) {
	if id != 0 {
		g.all[id].used += by
	}
}

// moved is which groups are not what they were: what refers to them has to be told.
type moved struct {
	sets       map[groupID]bool // they have other match sets
	references map[groupID]bool // they are referred to in another way
	placed     bool             // some of these by places that were given or taken
}

// settle gives the groups that are used the match sets that the ids of their selectors stand for, and places to
// those of many names. Others it forgets.
func (g *groups) settle(sets *interner, renewed map[uint32]*selector) moved {
	m := moved{sets: map[groupID]bool{}, references: map[groupID]bool{}}
	for i := range g.all[1:] {
		id := groupID(i + 1) //nolint:gosec // no more than names
		switch of := &g.all[id]; {
		case of.lists == nil: // free
		case of.used == 0:
			g.forget(id)
		case of.set == 0:
			g.name(id, sets)
		case len(renewed) > 0 && slices.ContainsFunc(of.lists, func(list uint32) bool { return renewed[list] != nil }):
			g.name(id, sets)
			m.sets[id] = true
			if of.place == 0 {
				m.references[id] = true
			}
		}
	}
	before := g.places
	g.settlePlaces(m)
	m.placed = g.places != before
	return m
}

// name gives a group the match set of its selectors.
func (g *groups) name(id groupID, sets *interner) {
	of := &g.all[id]
	selectors := make([]uint32, len(of.lists))
	for i, list := range of.lists {
		selectors[i] = g.ids[list]
	}
	slices.Sort(selectors)
	delete(g.bySet, of.set)
	of.set = sets.intern(selectors)
	g.bySet[of.set] = id
	if of.place != 0 {
		g.common[of.place] = of.set
	}
}

func (g *groups) forget(id groupID) {
	of := &g.all[id]
	delete(g.byLists, string(appendSet(nil, of.lists)))
	delete(g.bySet, of.set)
	g.leave(id)
	g.all[id] = group{}
	g.free = append(g.free, id)
}
