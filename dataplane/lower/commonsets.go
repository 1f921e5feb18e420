package lower

// CommonSets are the match sets that many names have, by their places; 0 is that of none. Names refer to one by its
// place: when it gives way to another, for all of them, no name has to be told.
type CommonSets [1 << (32 - matchSetBits)]MatchSet

// Of returns the match set that is referred to.
func (c *CommonSets) Of(r Reference) MatchSet {
	if place := r.Place(); place != 0 {
		return c[place]
	}
	return MatchSet(r)
}

// Reference says a match set by its number, or by the place of a common one in the bits above. 0 is the empty set.
type Reference uint32

// Place returns the place of the common set that is referred to; 0 if it is none.
func (r Reference) Place() int { return int(r >> matchSetBits) }

// manyNames is from how many names on a match set is a common one, until half of them are left: to tell so many of
// another takes as long as all else that a small change costs.
const manyNames = 256

// Common returns the common sets. Names refer to them as Sets says.
func (s *State) Common() CommonSets { return s.groups.common }

// settlePlaces gives places to groups of many names, and takes them from those that became small.
func (g *groups) settlePlaces(m moved) {
	for _, id := range g.places {
		if id != 0 && g.all[id].used < g.many/2 {
			g.leave(id)
			m.references[id] = true
		}
	}
	for i := range g.all {
		id := groupID(i) //nolint:gosec // no more than names
		if of := &g.all[id]; of.place != 0 || of.used < g.many || !g.makeRoom(of.used, m) {
			continue
		}
		g.take(id)
		m.references[id] = true
	}
}

// makeRoom reports whether a place is free for a group of so many names. The smallest gives way to one that is twice
// as large.
func (g *groups) makeRoom(names int, m moved) bool {
	smallest := g.places[1]
	for _, id := range g.places[1:] {
		if id == 0 {
			return true
		}
		if g.all[id].used < g.all[smallest].used {
			smallest = id
		}
	}
	if g.all[smallest].used > names/2 {
		return false
	}
	g.leave(smallest)
	m.references[smallest] = true
	return true
}

// take gives a group the first place that is free.
func (g *groups) take(id groupID) {
	for place := 1; place < len(g.places); place++ {
		if g.places[place] == 0 {
			g.places[place], g.common[place] = id, g.all[id].set
			g.all[id].place = uint8(place) //nolint:gosec // a few
			return
		}
	}
}

// leave takes the place of a group, if it has one.
func (g *groups) leave(id groupID) {
	if place := g.all[id].place; place != 0 {
		g.places[place], g.common[place] = 0, 0
		g.all[id].place = 0
	}
}
