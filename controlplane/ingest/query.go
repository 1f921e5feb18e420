package ingest

import (
	"slices"
	"time"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/node"
)

// List returns up to limit mappings that live and that the filter selects, in order, behind the position
// after, and whether there are more.
func (t *Table) List(filter Filter, after Position, limit int, now time.Time) (mappings []*Mapping, more bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	page := page{filter: filter, after: after, limit: limit + 1, now: now}
	t.collect(&page)
	if len(page.found) > limit {
		return page.found[:limit], true
	}
	return page.found, false
}

// collect offers every mapping that the filter may select to the page, by the index that leads to the
// fewest.
func (t *Table) collect(page *page) {
	filter := page.filter
	switch {
	case filter.Domain != domain.Pattern{} && !filter.Domain.Base().IsRoot():
		t.collectByDomain(page)
	case filter.Addresses.IsValid() && filter.Addresses.Bits() > 0:
		t.collectByAddress(page)
	case filter.Node != node.ID{}:
		if known := t.nodes[filter.Node]; known != nil {
			for _, e := range known.entries {
				page.offer(e.Mapping)
			}
		}
	default:
		for e := range t.byDomain.from(&entry{Mapping: &Mapping{Position: page.after}}) {
			if page.offer(e.Mapping); page.full() {
				return
			}
		}
	}
}

func (t *Table) collectByDomain(page *page) {
	base := page.filter.Domain.Base()
	for item := range t.byAlias.from(alias{base, &entry{Mapping: &Mapping{}}}) {
		if !below(item.name.String(), base.String()) {
			break
		}
		page.offer(item.entry.Mapping)
	}
	start := Position{Domain: base}
	if page.after.Compare(start) > 0 {
		start = page.after
	}
	for e := range t.byDomain.from(&entry{Mapping: &Mapping{Position: start}}) {
		// In order, so what follows the last of a full page is not on it.
		if !below(e.Domain.String(), base.String()) || page.beyond(e.Position) {
			return
		}
		page.offer(e.Mapping)
	}
}

func (t *Table) collectByAddress(page *page) {
	prefix := page.filter.Addresses
	for e := range t.byAddress.from(&entry{Mapping: &Mapping{Position: Position{Address: prefix.Addr()}}}) {
		if !prefix.Contains(e.Address) {
			return
		}
		page.offer(e.Mapping)
	}
}

// page keeps the first mappings, in order, of those offered. limit 0 keeps all, in no order.
type page struct {
	filter Filter
	after  Position
	limit  int
	now    time.Time
	found  []*Mapping
}

func (p *page) full() bool { return p.limit > 0 && len(p.found) >= p.limit }

// beyond reports whether a position is behind the last of a full page.
func (p *page) beyond(position Position) bool {
	return p.full() && position.Compare(p.found[len(p.found)-1].Position) > 0
}

func (p *page) offer(m *Mapping) {
	if !m.Expires.After(p.now) || !p.filter.Match(m) {
		return
	}
	if p.limit == 0 {
		p.found = append(p.found, m)
		return
	}
	if m.Compare(p.after) <= 0 || p.beyond(m.Position) {
		return
	}
	at, exists := slices.BinarySearchFunc(p.found, m, func(a, b *Mapping) int { return a.Compare(b.Position) })
	if exists {
		return // found by two names
	}
	if p.full() {
		p.found = p.found[:p.limit-1]
	}
	p.found = slices.Insert(p.found, at, m)
}
