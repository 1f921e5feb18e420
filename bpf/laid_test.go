package bpf_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
)

// A laying is a list of patterns of one generation in the tables that the programs look names up in, laid
// as plainly as their layout allows, and what each match set stands for.
type laying struct {
	patterns []domain.Pattern
	sets     map[uint32][]domain.Pattern
	ids      map[string]uint32
	first    uint32
}

// lay fills the tables of a generation, which are empty. Match sets are numbered from first on.
func lay(d *bpftest.Datapath, generation, first uint32, patterns []domain.Pattern) *laying {
	l := &laying{patterns: patterns, sets: map[uint32][]domain.Pattern{}, ids: map[string]uint32{}, first: first}
	nodes := map[string]bool{}
	for _, p := range patterns {
		if !p.Base().IsRoot() {
			nodes[p.Base().String()] = true
		}
	}
	places := l.layGeneral(d, generation, slices.Sorted(maps.Keys(nodes)))
	for node := range nodes {
		name := parseName(node)
		exact := l.set(func(p domain.Pattern) bool { return p.Form() != domain.Every && p.Match(name) })
		below := l.set(func(p domain.Pattern) bool { return p.Form() == domain.Below && within(node, p.Base().String()) })
		d.Pattern(generation, node, l.refer(d, generation, exact), l.refer(d, generation, below))
		d.List(generation, node, places(node))
	}
	d.List(generation, "", places("."))
	d.Every(generation, l.set(func(p domain.Pattern) bool { return p.Form() == domain.Every }))
	return l
}

// layGeneral lays the lists of general patterns, and gives the first place of the names below a base.
func (l *laying) layGeneral(d *bpftest.Datapath, generation uint32, nodes []string) func(base string) uint16 {
	nodes = append(nodes, ".")
	// Bases from the root down: a list goes on with that of the next base above.
	slices.SortStableFunc(nodes, func(a, b string) int { return depth(a) - depth(b) })
	next, lists := uint16(1), map[string]uint16{}
	above := func(base string) uint16 {
		longest := "."
		for other := range lists {
			if within(base, other) && depth(other) > depth(longest) {
				longest = other
			}
		}
		return lists[longest]
	}
	for _, base := range nodes {
		list := above(base)
		for _, p := range l.patterns {
			if !p.General() || p.Base().String() != base {
				continue
			}
			form := map[domain.Form]bpf.DatapathGeneralForm{
				domain.Labels:      bpf.DatapathGeneralFormGENERAL_LABELS,
				domain.Within:      bpf.DatapathGeneralFormGENERAL_WITHIN,
				domain.BelowWithin: bpf.DatapathGeneralFormGENERAL_BELOW_WITHIN,
			}[p.Form()]
			prefix, suffix := p.Affixes()
			set := l.set(func(other domain.Pattern) bool { return other == p })
			d.General(generation, uint32(next), bpf.DatapathGeneralPattern{MatchSet: set, Form: form, Next: list},
				p.Head(), prefix, suffix, strings.TrimSuffix(base, "."))
			list = next
			next++
		}
		lists[base] = list
	}
	return func(base string) uint16 { return above(base) }
}

// set gives the match set of the patterns that satisfy a condition; 0 if there are none.
func (l *laying) set(holds func(domain.Pattern) bool) uint32 {
	var patterns []domain.Pattern
	for _, p := range l.patterns {
		if holds(p) {
			patterns = append(patterns, p)
		}
	}
	if len(patterns) == 0 {
		return 0
	}
	key := fmt.Sprint(patterns)
	if _, known := l.ids[key]; !known {
		l.ids[key] = l.first + uint32(len(l.ids))
		l.sets[l.ids[key]] = patterns
	}
	return l.ids[key]
}

// refer gives what a cell says of a match set: its number, or the place of a common one, as every other of the first.
func (l *laying) refer(d *bpftest.Datapath, generation, set uint32) uint32 {
	if place := (set-l.first)/2 + 1; set != 0 && (set-l.first)%2 == 1 && place < uint32(len(bpf.DatapathCommonMatchSets{}.Sets)) {
		return d.Common(generation, place, set)
	}
	return set
}

// within reports whether a name is the base, or below it.
func within(name, base string) bool {
	return base == "." || name == base || strings.HasSuffix(name, "."+base)
}

func depth(name string) int {
	if name == "." {
		return 0
	}
	return 1 + strings.Count(name, ".")
}

func parseName(text string) domain.Name {
	name, err := domain.ParseCanonical(text)
	if err != nil {
		panic(err)
	}
	return name
}

// parsePatterns gives patterns, and fails the test if one is none.
func parsePatterns(t testing.TB, texts ...string) []domain.Pattern {
	t.Helper()
	var patterns []domain.Pattern
	for _, text := range texts {
		pattern, err := domain.ParsePattern(text)
		if err != nil {
			t.Fatalf("pattern %q: %v", text, err)
		}
		patterns = append(patterns, pattern)
	}
	return patterns
}
