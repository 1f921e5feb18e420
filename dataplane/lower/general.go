package lower

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/dataplane/enforce"
)

// general is a pattern that no lookup of a name finds: its `*` is elsewhere than in a leading `*.`. It
// belongs to the node of its base. A name that is no node itself is held against the general patterns
// of every name above it; what those are, is a list that a node hands down to the names below it.
type general struct {
	pattern   domain.Pattern
	selectors []uint32
	set       MatchSet
}

// General is a general pattern in its table.
type General struct {
	Pattern domain.Pattern
	Set     MatchSet
	// Next is the place of the next pattern that the same names are held against; 0: this is the last.
	Next uint16
}

// GeneralPatterns are the patterns that names are held against one by one.
type GeneralPatterns struct {
	// Every is the match set of every name: that of `*`.
	Every MatchSet
	// List is the place of the first pattern for names below which no name is known.
	List uint16
	// Table holds the patterns by their places, from 1 on. The places of one list are followed by those of
	// the next base above, so that a pattern is there once, whatever the number of names that it is for.
	Table map[uint16]General
}

// places are those of a table that are free: the ones that were given back, and all above last.
type places struct {
	free []uint16
	last uint16
}

func (p *places) take() (uint16, bool) {
	if len(p.free) > 0 {
		place := p.free[len(p.free)-1]
		p.free = p.free[:len(p.free)-1]
		return place, true
	}
	if p.last == ruleset.MaxGeneralPatterns {
		return 0, false
	}
	p.last++
	return p.last, true
}

// generalOf returns the pattern among those of its base, which it joins if need be.
func (n *node) generalOf(p domain.Pattern) *general {
	i, found := slices.BinarySearchFunc(n.general, p, func(g *general, p domain.Pattern) int {
		return strings.Compare(g.pattern.String(), p.String())
	})
	if !found {
		n.general = slices.Insert(n.general, i, &general{pattern: p})
	}
	return n.general[i]
}

// list returns the place of the first of the node's own general patterns; 0: it has none.
func (n *node) list() uint16 {
	if len(n.places) == 0 {
		return 0
	}
	return n.places[0]
}

// settleGeneral brings match sets and places of general patterns to what their selectors say. A base
// keeps the places that it has, so that nodes below it do not change when a pattern joins or leaves.
func (s *State) settleGeneral(t touched) {
	s.settleSet(&s.every)
	for _, base := range slices.Sorted(maps.Keys(t.general)) {
		n := s.nodes[base]
		for _, g := range n.general {
			s.settleSet(g)
		}
		n.general = slices.DeleteFunc(n.general, func(g *general) bool { return len(g.selectors) == 0 })
		for len(n.places) > len(n.general) {
			last := len(n.places) - 1
			s.places.free = append(s.places.free, n.places[last])
			n.places = n.places[:last]
		}
		delete(s.anchors, base)
		if len(n.general) > 0 {
			s.anchors[base] = n
		}
	}
	// Not only for those touched: of a rule set before, some may have found no place.
	for _, base := range slices.Sorted(maps.Keys(s.anchors)) {
		n := s.anchors[base]
		if len(n.places) == len(n.general) {
			continue
		}
		t.above[base], t.general[base], t.names[base] = true, true, true
		for len(n.places) < len(n.general) {
			place, left := s.places.take()
			if !left {
				break
			}
			n.places = append(n.places, place)
		}
	}
}

func (s *State) settleSet(g *general) {
	set := s.sets.intern(g.selectors)
	s.use(set, 1)
	s.use(g.set, -1)
	g.set = set
}

// layOutGeneral makes the table of general patterns. The error wraps enforce.ErrFull.
func (s *State) layOutGeneral() (GeneralPatterns, error) {
	t := GeneralPatterns{Every: s.every.set, Table: map[uint16]General{}}
	if n := s.anchors[root]; n != nil {
		t.List = n.list()
	}
	for _, base := range slices.Sorted(maps.Keys(s.anchors)) {
		n := s.anchors[base]
		length, next := len(n.general), uint16(0)
		for above := range ancestors(base) {
			if n := s.anchors[above]; n != nil {
				length += len(n.general)
				if next == 0 {
					next = n.list()
				}
			}
		}
		if length > ruleset.MaxGeneralPatternsOfName {
			return t, fmt.Errorf("lay out domain patterns: names below %s are held against %d like %s, more than %d: %w",
				base, length, n.general[0].pattern, ruleset.MaxGeneralPatternsOfName, enforce.ErrFull)
		}
		if len(n.places) < len(n.general) {
			return t, fmt.Errorf("lay out domain patterns: %s is one of more than %d with a `*` elsewhere than in a leading `*.`: %w",
				n.general[len(n.places)].pattern, ruleset.MaxGeneralPatterns, enforce.ErrFull)
		}
		for i := len(n.general) - 1; i >= 0; i-- {
			g := n.general[i]
			t.Table[n.places[i]] = General{Pattern: g.pattern, Set: g.set, Next: next}
			next = n.places[i]
		}
	}
	return t, nil
}
