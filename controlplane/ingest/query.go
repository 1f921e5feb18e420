package ingest

import (
	"slices"
	"time"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/node"
)

const (
	// scanAtOnce is how many mappings a list looks at before it lets those write who wait.
	scanAtOnce = 2048
	// scanLimit is how many it looks at in all: where few of many match, its pages are short.
	scanLimit = 32 * scanAtOnce
)

// Index says in which order a list goes through the mappings.
type Index uint8

// The indexes. ByAlias follows on ByDomain, with the mappings that only an alias selects.
const (
	NoIndex Index = iota
	ByDomain
	ByAlias
	ByAddress
	ByNode
)

// Cursor is a place in a list: behind the last mapping that it went by. The zero Cursor is the beginning.
type Cursor struct {
	Index Index
	// Alias is that by which ByAlias came to the mapping.
	Alias domain.Name
	Position
}

// Page is a part of a list.
type Page struct {
	Mappings []*Mapping
	// Cursors are the places behind each of them.
	Cursors []Cursor
	// Next is where the next page begins. With More there may be one, also behind a page that is short or empty.
	Next Cursor
	More bool
}

// List returns up to limit mappings that live and that the filter selects, behind a place. The order is that of the
// index which leads to the fewest mappings, and stays the same on all pages. It never holds writers up for long.
func (t *Table) List(filter Filter, after Cursor, limit int, now time.Time) Page {
	s := &scan{filter: filter, now: now, limit: limit, at: after, left: scanLimit}
	for !s.over && s.left > 0 {
		t.mu.RLock()
		s.step(t, min(s.left, scanAtOnce))
		t.mu.RUnlock()
	}
	s.page.Next = s.at
	s.page.More = s.page.More || !s.over
	return s.page
}

// scan goes through an index in steps.
type scan struct {
	filter Filter
	now    time.Time
	limit  int // 0 for none
	at     Cursor
	left   int
	over   bool
	page   Page
}

// step looks at up to so many mappings. The table's lock is held.
func (s *scan) step(t *Table, atOnce int) {
	if s.at.Index == NoIndex {
		s.at.Index = t.choose(s.filter)
	}
	begun := s.left
	goesOn := func() bool { return !s.over && begun-s.left < atOnce }
	switch s.at.Index {
	case ByDomain:
		s.byDomain(t, goesOn)
	case ByAlias:
		s.byAlias(t, goesOn)
	case ByAddress:
		s.byAddress(t, goesOn)
	case ByNode, NoIndex:
		s.byNode(t)
	}
}

// choose returns the index that leads to the fewest mappings.
func (t *Table) choose(filter Filter) Index {
	if (filter.Node != node.ID{}) {
		return ByNode
	}
	index, fewest := ByDomain, t.byDomain.length
	if base := filter.Domain.Base(); (filter.Domain != domain.Pattern{}) && !base.IsRoot() {
		first, within := alias{base, at(Position{})}, func(a alias) bool { return below(a.name.String(), base.String()) }
		fewest = t.byDomain.span(first, within) + t.byAlias.span(first, within)
	}
	if prefix := filter.Addresses; prefix.IsValid() && prefix.Bits() > 0 {
		first := addressed{prefix.Addr(), at(Position{})}
		if t.byAddress.span(first, func(a addressed) bool { return prefix.Contains(a.address) }) < fewest {
			index = ByAddress
		}
	}
	return index
}

func (s *scan) byDomain(t *Table, goesOn func() bool) {
	base := s.base()
	start := s.at.Position
	if first := (Position{Domain: base}); start.Compare(first) < 0 {
		start = first
	}
	for item := range t.byDomain.from(named(at(start))) {
		e := item.entry
		if !s.within(item.name, base) {
			break
		}
		if !goesOn() {
			return
		}
		// What an alias leads to comes with the aliases.
		selects := s.filter.Domain == domain.Pattern{} || s.filter.Domain.Match(e.Domain)
		s.pass(Cursor{ByDomain, domain.Name{}, e.Position}, e.Mapping, selects)
	}
	if s.over || !goesOn() {
		return
	}
	if s.over = s.filter.Domain == (domain.Pattern{}); !s.over {
		s.at = Cursor{Index: ByAlias, Alias: base}
	}
}

func (s *scan) byAlias(t *Table, goesOn func() bool) {
	base := s.base()
	for item := range t.byAlias.from(alias{s.at.Alias, at(s.at.Position)}) {
		if !s.within(item.name, base) {
			break
		}
		if !goesOn() {
			return
		}
		m := item.entry.Mapping
		s.pass(Cursor{ByAlias, item.name, m.Position}, m, s.firstAlias(m, item.name))
	}
	s.over = s.over || goesOn()
}

// firstAlias reports whether the alias is the first, in their order, that the filter selects the mapping by, and its
// own name does not.
func (s *scan) firstAlias(m *Mapping, name domain.Name) bool {
	if s.filter.Domain.Match(m.Domain) || !s.filter.Domain.Match(name) {
		return false
	}
	return !slices.ContainsFunc(m.Chain, func(other domain.Name) bool {
		return compareNames(other.String(), name.String()) < 0 && s.filter.Domain.Match(other)
	})
}

func (s *scan) byAddress(t *Table, goesOn func() bool) {
	prefix := s.filter.Addresses
	start := s.at.Position
	if !start.Address.IsValid() {
		start.Address = prefix.Addr()
	}
	for item := range t.byAddress.from(addressedBy(at(start))) {
		e := item.entry
		if !prefix.Contains(item.address) {
			break
		}
		if !goesOn() {
			return
		}
		s.pass(Cursor{ByAddress, domain.Name{}, e.Position}, e.Mapping, true)
	}
	s.over = s.over || goesOn()
}

// byNode looks at all of the node, whose mappings are in no order.
func (s *scan) byNode(t *Table) {
	known := t.nodes[s.filter.Node]
	if known == nil {
		s.over = true
		return
	}
	var behind []*Mapping
	for _, e := range known.entries {
		if e.Compare(s.at.Position) > 0 && s.selects(e.Mapping) {
			behind = append(behind, e.Mapping)
		}
	}
	slices.SortFunc(behind, func(a, b *Mapping) int { return a.Compare(b.Position) })
	for _, m := range behind {
		if s.pass(Cursor{ByNode, domain.Name{}, m.Position}, m, true); s.over {
			return
		}
	}
	s.over = true
}

// pass goes by a mapping, and takes it if it is selected. The list is over when there is no room for it.
func (s *scan) pass(at Cursor, m *Mapping, selected bool) {
	if at == s.at {
		return // where the last step ended
	}
	s.left--
	if selected = selected && s.selects(m); selected && s.limit > 0 && len(s.page.Mappings) == s.limit {
		s.page.More, s.over = true, true
		return
	}
	s.at = at
	if selected {
		s.page.Mappings, s.page.Cursors = append(s.page.Mappings, m), append(s.page.Cursors, at)
	}
}

func (s *scan) selects(m *Mapping) bool { return m.Expires.After(s.now) && s.filter.Match(m) }

// base returns the name at or below which all names are that the filter selects; the zero Name for all.
func (s *scan) base() domain.Name {
	if base := s.filter.Domain.Base(); !base.IsRoot() {
		return base
	}
	return domain.Name{}
}

// within reports whether a name may be selected, and those behind it in order.
func (s *scan) within(name, base domain.Name) bool {
	if s.filter.Domain.Form() == domain.Exact {
		return name == base
	}
	return base.IsZero() || below(name.String(), base.String())
}
