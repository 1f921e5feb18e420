package lower

import (
	"iter"
	"maps"
	"slices"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/ruleset"
)

// touched collects what a change of selectors may change.
type touched struct {
	names   map[string]bool
	above   map[string]bool // bases of wildcards that came or went: every name below may have changed
	general map[string]bool // bases of general patterns: so may what names below match that are no node
	every   *general
	renewed map[uint32]*selector // lists that go on under a new id
}

// update brings the nodes to what rules say, and returns the names that refer to other match sets, sorted.
func (s *State) update(rules *ruleset.RuleSet) []string {
	t := touched{map[string]bool{}, map[string]bool{}, map[string]bool{}, &s.every, map[uint32]*selector{}}
	present := map[selectorKey]bool{}
	for _, set := range rules.DomainSets {
		key := selectorKey{set.Name, ofDomainSet}
		present[key] = true
		s.put(key, set.Domains, t)
	}
	for _, policy := range rules.Policies {
		for i, rule := range policy.Rules {
			if len(rule.Domains) > 0 {
				key := selectorKey{policy.Name, i}
				present[key] = true
				s.put(key, rule.Domains, t)
			}
		}
	}
	for _, key := range s.absent(present) {
		s.drop(s.selectors[key].list, s.selectors[key].patterns, t)
		delete(s.groups.ids, s.selectors[key].list)
		delete(s.selectors, key)
		s.forgetful = true
	}
	clear(s.remembered)
	next := s.sets.next
	changed := s.recompute(t)
	if s.sets.sweep(s.groups.bySet) || s.sets.next != next {
		s.forgetful = true
	}
	return changed
}

func (s *State) absent(present map[selectorKey]bool) []selectorKey {
	var absent []selectorKey
	for key := range s.selectors {
		if !present[key] {
			absent = append(absent, key)
		}
	}
	return absent
}

func (s *State) put(key selectorKey, patterns []domain.Pattern, t touched) {
	old := s.selectors[key]
	if old == nil {
		s.selectors[key] = s.newSelector(key, patterns)
		s.join(s.selectors[key].list, patterns, t)
		s.forgetful = true
		return
	}
	if isSame(old.patterns, patterns) {
		return
	}
	removed, added := difference(old.patterns, patterns)
	s.drop(old.list, removed, t)
	s.join(old.list, added, t)
	for _, p := range removed {
		old.digest.remove(p)
	}
	for _, p := range added {
		old.digest.add(p)
	}
	old.patterns = patterns
	if len(removed) > 0 {
		old.id = s.takeSelector()
		s.groups.ids[old.list] = old.id
		t.renewed[old.list] = old
	}
	s.forgetful = s.forgetful || len(removed)+len(added) > 0
}

// newSelector takes up the id of the process before when that had the same list.
func (s *State) newSelector(key selectorKey, patterns []domain.Pattern) *selector {
	digest := digestOf(patterns)
	var id uint32
	if m, known := s.remembered[key]; known && m.Digest == digest {
		id = m.ID
	} else {
		id = s.takeSelector()
	}
	s.groups.ids[id] = id
	return &selector{id, id, patterns, digest}
}

func (s *State) takeSelector() uint32 {
	id := s.nextSelector
	s.nextSelector++
	return id
}

// isSame reports whether both are one list in memory, as those are that a change of the rule set left alone.
func isSame(a, b []domain.Pattern) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// difference tells what left a list and what came. Lists are long and differ in little: what they have
// in common at both ends is passed over first.
func difference(old, now []domain.Pattern) (removed, added []domain.Pattern) {
	for len(old) > 0 && len(now) > 0 && old[0] == now[0] {
		old, now = old[1:], now[1:]
	}
	for len(old) > 0 && len(now) > 0 && old[len(old)-1] == now[len(now)-1] {
		old, now = old[:len(old)-1], now[:len(now)-1]
	}
	if len(old) == 0 || len(now) == 0 {
		return old, now
	}
	left := make(map[domain.Pattern]bool, len(old))
	for _, p := range old {
		left[p] = true
	}
	for _, p := range now {
		if left[p] {
			delete(left, p)
		} else {
			added = append(added, p)
		}
	}
	return slices.Collect(maps.Keys(left)), added
}

func (s *State) join(list uint32, patterns []domain.Pattern, t touched) {
	edit := editor{edit: func(l selectors) selectors { return l.with(list) }}
	for _, p := range patterns {
		edit.apply(t.touch(p, s.nodeOf(p)))
	}
}

func (s *State) drop(list uint32, patterns []domain.Pattern, t touched) {
	edit := editor{edit: func(l selectors) selectors { return l.without(list) }}
	for _, p := range patterns {
		edit.apply(t.touch(p, s.nodeOf(p)))
	}
}

// nodeOf returns the node of a pattern's base, which it makes if need be.
func (s *State) nodeOf(p domain.Pattern) *node {
	base := p.Base()
	n := s.nodes[base.String()]
	if n == nil {
		n = &node{name: base}
		s.nodes[base.String()] = n
		if !base.IsRoot() {
			s.order.add(n)
		}
	}
	return n
}

// touch notes that a pattern's node changes and returns the selectors that have the pattern.
func (t touched) touch(p domain.Pattern, n *node) *selectors {
	base := n.name.String()
	t.names[base] = true
	switch p.Form() {
	case domain.Exact:
		return &n.exact
	case domain.Below:
		t.above[base] = true
		return &n.below
	case domain.Every:
		t.general[base] = true
		t.every.pattern = p
		return &t.every.selectors
	default:
		t.above[base] = true
		t.general[base] = true
		return &n.generalOf(p).selectors
	}
}

func (s *State) recompute(t touched) []string {
	s.settleGeneral(t)
	s.touchBelow(t)
	changed := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(t.names)) {
		if s.recomputeNode(name) || t.general[name] {
			changed[name] = true
		}
	}
	s.noteMoved(s.groups.settle(&s.sets, t.renewed), t, changed)
	return slices.Sorted(maps.Keys(changed))
}

// noteMoved adds the names that refer to match sets of groups which moved, and the bases of general patterns that
// have other ones: the change did not touch them.
func (s *State) noteMoved(m moved, t touched, changed map[string]bool) {
	if m.sets[s.every.group] {
		changed[root] = true
	}
	for base, n := range s.anchors {
		for _, g := range n.general() {
			if m.sets[g.group] {
				changed[base] = true
			}
		}
	}
	if len(m.references) == 0 {
		return
	}
	for n := range s.within(t.renewed, m.placed) {
		if m.references[n.groups.exact] || m.references[n.groups.below] {
			changed[n.name.String()] = true
		}
	}
}

// within yields the nodes that may be in a group of the lists, or, if all is true, every node.
func (s *State) within(lists map[uint32]*selector, all bool) iter.Seq[*node] {
	handsDown := func(p domain.Pattern) bool { return p.Form() != domain.Exact }
	for _, l := range lists {
		all = all || len(l.patterns) > s.groups.many || slices.ContainsFunc(l.patterns, handsDown)
	}
	if all {
		return maps.Values(s.nodes)
	}
	return func(yield func(*node) bool) {
		for _, l := range lists {
			for _, p := range l.patterns {
				if !yield(s.nodes[p.Base().String()]) {
					return
				}
			}
		}
	}
}

// fewWildcards is up to how many bases are looked up in the order of nodes: of more, as of a rule set that is
// new, each node's ancestors are.
const fewWildcards = 64

// touchBelow touches the names below those from which something is inherited.
func (s *State) touchBelow(t touched) {
	if len(t.above) <= fewWildcards && !t.above[root] {
		for base := range t.above {
			s.Settle()
			s.order.below(base, func(n *node) { t.names[n.name.String()] = true })
		}
		return
	}
	for name := range s.nodes {
		if t.above[root] {
			t.names[name] = true
			continue
		}
		for base := range ancestors(name) {
			if t.above[base] {
				t.names[name] = true
				break
			}
		}
	}
}

// Settle does beforehand what the next change would have to, after one of many names.
func (s *State) Settle() {
	s.order.settle(func(n *node) bool { return s.nodes[n.name.String()] == n })
}

func (s *State) recomputeNode(name string) bool {
	n := s.nodes[name]
	var groups nameGroups
	if !n.exact.empty() || !n.below.empty() || len(n.general()) > 0 {
		groups = s.groupsOf(n)
	} else {
		delete(s.nodes, name)
		s.order.gone = true
	}
	if groups == n.groups {
		return false
	}
	s.groups.use(groups.exact, 1)
	s.groups.use(groups.below, 1)
	s.groups.use(n.groups.exact, -1)
	s.groups.use(n.groups.below, -1)
	n.groups = groups
	return true
}

func (s *State) groupsOf(n *node) nameGroups {
	var inherited, matching []uint32
	list := n.list()
	for base := range ancestors(n.name.String()) {
		above := s.nodes[base]
		if above == nil {
			continue
		}
		inherited = above.below.appendTo(inherited)
		for _, g := range above.general() {
			if g.pattern.Match(n.name) {
				matching = g.selectors.appendTo(matching)
			}
		}
		if list == 0 {
			list = above.list()
		}
	}
	exact := s.groups.union(n.exact, append(matching, inherited...))
	return nameGroups{exact: exact, below: s.groups.union(n.below, inherited), list: list}
}
