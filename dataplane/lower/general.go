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
	selectors selectors
	group     groupID
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
	if n.anchored == nil {
		n.anchored = &anchored{}
	}
	a := n.anchored
	i, found := slices.BinarySearchFunc(a.general, p, func(g *general, p domain.Pattern) int {
		return strings.Compare(g.pattern.String(), p.String())
	})
	if !found {
		a.general = slices.Insert(a.general, i, &general{pattern: p})
	}
	return a.general[i]
}

// list returns the place of the first of the node's own general patterns; 0: it has none.
func (n *node) list() uint16 {
	if n.anchored == nil || len(n.anchored.places) == 0 {
		return 0
	}
	return n.anchored.places[0]
}

// settleGeneral brings groups and places of general patterns to what their selectors say. A base
// keeps the places that it has, so that nodes below it do not change when a pattern joins or leaves.
func (s *State) settleGeneral(t touched) {
	s.settleSet(&s.every)
	for _, base := range slices.Sorted(maps.Keys(t.general)) {
		s.settleAnchor(base, s.nodes[base])
	}
	// Not only for those touched: of a rule set before, some may have found no place.
	for _, base := range slices.Sorted(maps.Keys(s.anchors)) {
		a := s.anchors[base].anchored
		if len(a.places) == len(a.general) {
			continue
		}
		t.above[base], t.general[base], t.names[base] = true, true, true
		for len(a.places) < len(a.general) {
			place, left := s.places.take()
			if !left {
				break
			}
			a.places = append(a.places, place)
		}
	}
}

// settleAnchor leaves out the patterns of a base that no selector has any more, and gives their places back.
func (s *State) settleAnchor(base string, n *node) {
	delete(s.anchors, base)
	a := n.anchored
	if a == nil {
		return
	}
	for _, g := range a.general {
		s.settleSet(g)
	}
	a.general = slices.DeleteFunc(a.general, func(g *general) bool { return g.selectors.empty() })
	for len(a.places) > len(a.general) {
		last := len(a.places) - 1
		s.places.free = append(s.places.free, a.places[last])
		a.places = a.places[:last]
	}
	if len(a.general) == 0 {
		n.anchored = nil
		return
	}
	s.anchors[base] = n
}

func (s *State) settleSet(g *general) {
	group := s.groups.union(g.selectors, nil)
	s.groups.use(group, 1)
	s.groups.use(g.group, -1)
	g.group = group
}

// layOutGeneral makes the table of general patterns. The error wraps enforce.ErrFull.
func (s *State) layOutGeneral() (GeneralPatterns, error) {
	t := GeneralPatterns{Every: s.groups.set(s.every.group), Table: map[uint16]General{}}
	if n := s.anchors[root]; n != nil {
		t.List = n.list()
	}
	for _, base := range slices.Sorted(maps.Keys(s.anchors)) {
		a := s.anchors[base].anchored
		length, next := len(a.general), uint16(0)
		for above := range ancestors(base) {
			if n := s.anchors[above]; n != nil {
				length += len(n.anchored.general)
				if next == 0 {
					next = n.list()
				}
			}
		}
		if length > ruleset.MaxGeneralPatternsOfName {
			return t, fmt.Errorf("lay out domain patterns: names below %s are held against %d like %s, more than %d: %w",
				base, length, a.general[0].pattern, ruleset.MaxGeneralPatternsOfName, enforce.ErrFull)
		}
		if len(a.places) < len(a.general) {
			return t, fmt.Errorf("lay out domain patterns: %s is one of more than %d with a `*` elsewhere than in a leading `*.`: %w",
				a.general[len(a.places)].pattern, ruleset.MaxGeneralPatterns, enforce.ErrFull)
		}
		for i := len(a.general) - 1; i >= 0; i-- {
			g := a.general[i]
			t.Table[a.places[i]] = General{Pattern: g.pattern, Set: s.groups.set(g.group), Next: next}
			next = a.places[i]
		}
	}
	return t, nil
}
