package datapath

import "github.com/nameward/nameward/dataplane/lower"

// said is what a generation says of a name before it is held against general patterns.
type said struct {
	set  lower.MatchSet
	list uint16 // of general patterns that it is held against
}

// ofName returns what a generation says of a plain name.
func (n *names) ofName(name string, generation uint32) said {
	sets, exact, known := n.match(name, generation)
	if exact {
		return said{set: n.common[generation].Of(sets.Exact)}
	}
	return n.inherited(sets, known, generation)
}

// ofBelow returns what a generation says of the names below a plain name that are below no other one.
func (n *names) ofBelow(name string, generation uint32) said {
	sets, known := n.below(name, generation)
	return n.inherited(sets, known, generation)
}

func (n *names) inherited(sets lower.NameSets, known bool, generation uint32) said {
	if !known {
		return said{list: n.general[generation].list}
	}
	return said{n.common[generation].Of(sets.Below), sets.List}
}

// lookedAt is of up to how many names that changed it is looked at what they lose: of more, some lose something.
const lookedAt = 512

// replaces reports whether some name may have a match set in one generation and not in the other. What joins a list
// and matched nothing before takes none from any name.
func (n *names) replaces(from, to uint32) bool {
	stale := n.stale[from]
	if stale == nil || len(stale) > lookedAt || n.moves(from, to) || n.general[from].losesTo(n.general[to]) {
		return true
	}
	for name := range stale {
		if name == everyName {
			continue // of general patterns, and of them alone
		}
		if n.ofName(name, from).losesTo(n.ofName(name, to)) || n.ofBelow(name, from).losesTo(n.ofBelow(name, to)) {
			return true
		}
	}
	return false
}

func (s said) losesTo(other said) bool {
	return s.set != 0 && s.set != other.set || s.list != 0 && s.list != other.list
}

func (g *generalPatterns) losesTo(other *generalPatterns) bool {
	if g.every != 0 && g.every != other.every || g.list != 0 && g.list != other.list {
		return true
	}
	for place, pattern := range g.table {
		now := other.table[place]
		pattern.Next = now.Next // what a list goes on with is there, or is not in the table
		if pattern != now {
			return true
		}
	}
	return false
}
