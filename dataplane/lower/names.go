package lower

import (
	"iter"
	"slices"
	"strings"

	"github.com/nameward/nameward/api/domain"
)

// State is what lowering remembers from one rule set to the next: the names in patterns with their
// match sets, so that a change costs what changes, and the ids that have to stay. It is not safe for
// concurrent use.
type State struct {
	sets         interner
	groups       groups
	nextSelector uint32
	selectors    map[selectorKey]*selector
	remembered   map[selectorKey]SelectorMemory // of the process before, until the first rule set
	nodes        map[string]*node               // by the name's text; the root's is "."
	order        order                          // of the nodes
	anchors      map[string]*node               // those of nodes that general patterns have as base
	places       places                         // of general patterns in their table
	every        general                        // the pattern `*`
	forgetful    bool                           // Memory changed
}

// selectorKey is where a list of domains stands: in a rule of a policy, or, with the rule ofDomainSet, in
// the domain set of that name, however many rules name it.
type selectorKey struct {
	policy string
	rule   int
}

const ofDomainSet = -1

// selector is a list of domains. It keeps its id while the list only grows: a name that it matched, it
// still matches. When a pattern leaves, the list goes on under a new id, so that a name which was
// learned under the old one no longer opens anything by it.
type selector struct {
	list     uint32 // the id that it had first: what nodes and groups know it by
	id       uint32
	patterns []domain.Pattern
	digest   Digest
}

// node is a name that is the base of some pattern. There are as many as patterns, so it is small.
type node struct {
	name         domain.Name
	exact, below selectors // with that very pattern
	anchored     *anchored // nil for nearly all
	groups       nameGroups
}

// nameGroups are the groups of a name itself and of the names below it, and its list as NameSets has it.
type nameGroups struct {
	exact, below groupID
	list         uint16
}

// anchored is the general patterns that have a node as base.
type anchored struct {
	general []*general
	places  []uint16 // of general, as far as there were any left
}

// general returns the general patterns of a node.
func (n *node) general() []*general {
	if n.anchored == nil {
		return nil
	}
	return n.anchored.general
}

// NameSets is what is known beforehand of a name that is the base of a pattern. The selectors with `*`
// are in no set of it.
type NameSets struct {
	// Exact is the match set of the name itself, general patterns included.
	Exact Reference
	// Below is that of the names below which have no node nearer, without general patterns: those are held
	// against the patterns from List on.
	Below Reference
	// List is the place of the first general pattern whose base is the name or above it; 0: there is none.
	List uint16
}

// NewState returns a state that gives out match sets from next on, and that takes up what an earlier
// one remembered.
func NewState(next MatchSet, memory Memory) *State {
	s := &State{
		sets:         newInterner(max(next, memory.NextMatchSet)),
		groups:       newGroups(),
		nextSelector: max(memory.NextSelector, 1),
		selectors:    map[selectorKey]*selector{},
		remembered:   map[selectorKey]SelectorMemory{},
		nodes:        map[string]*node{},
		anchors:      map[string]*node{},
	}
	for _, m := range memory.MatchSets {
		s.sets.restore(m.ID, m.Selectors)
	}
	for _, m := range memory.Selectors {
		s.remembered[selectorKey{m.Policy, m.Rule}] = m
	}
	return s
}

// NextMatchSet returns a number that is above every match set given out.
func (s *State) NextMatchSet() MatchSet { return s.sets.next }

// Uses reports whether any name has a match set, by the last rule set that was lowered.
func (s *State) Uses(set MatchSet) bool { return s.groups.bySet[set] != 0 }

// Sets returns what is known of a name that is the base of a pattern; nothing of any other name, nor of
// the root.
func (s *State) Sets(base string) NameSets {
	if n := s.nodes[base]; n != nil && base != root {
		return NameSets{s.groups.reference(n.groups.exact), s.groups.reference(n.groups.below), n.groups.list}
	}
	return NameSets{}
}

// Names yields every name that is the base of a pattern, but for the root.
func (s *State) Names() iter.Seq[string] {
	return func(yield func(string) bool) {
		for name := range s.nodes {
			if name != root && !yield(name) {
				return
			}
		}
	}
}

// Match returns the match sets of any name, sorted.
func (s *State) Match(name domain.Name) []MatchSet {
	var sets []MatchSet
	if s.every.pattern.Match(name) {
		sets = append(sets, s.groups.set(s.every.group))
	}
	if name.Plain() {
		sets = append(sets, s.matchPlain(name)...)
	}
	slices.Sort(sets)
	sets = slices.Compact(sets)
	if len(sets) > 0 && sets[0] == 0 {
		sets = sets[1:]
	}
	return sets
}

func (s *State) matchPlain(name domain.Name) []MatchSet {
	if n := s.nodes[name.String()]; n != nil {
		return []MatchSet{s.groups.set(n.groups.exact)}
	}
	var sets []MatchSet
	known := false
	for base := range ancestors(name.String()) {
		n := s.nodes[base]
		if n == nil {
			continue
		}
		if !known {
			known, sets = true, append(sets, s.groups.set(n.groups.below))
		}
		for _, g := range n.general() {
			if g.pattern.Match(name) {
				sets = append(sets, s.groups.set(g.group))
			}
		}
	}
	return sets
}

const root = "."

// ancestors yields the names above a plain name, the nearest first and the root last; none of the root.
func ancestors(name string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for name != root {
			_, parent, found := strings.Cut(name, ".")
			if !found {
				parent = root
			}
			name = parent
			if !yield(name) {
				return
			}
		}
	}
}
