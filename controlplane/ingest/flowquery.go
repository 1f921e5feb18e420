package ingest

import (
	"slices"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/flow"
	"github.com/nameward/nameward/api/node"
)

// List returns up to limit flow events that the filter selects, in order, behind the position after, and
// whether there are more.
func (f *Flows) List(filter flow.Filter, after flow.Position, limit int) (events []*FlowEvent, more bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	page := flowPage{filter: &filter, behind: flowAt(after).FlowEvent, limit: limit + 1}
	f.collect(&page)
	if len(page.found) > limit {
		return page.found[:limit], true
	}
	return page.found, false
}

// collect offers every event that the filter may select to the page, by the index that leads to the fewest.
func (f *Flows) collect(page *flowPage) {
	filter := page.filter
	switch {
	case filter.Domain != domain.Pattern{}:
		f.collectByName(page)
	case filter.Addresses.IsValid() && filter.Addresses.Bits() > 0:
		probe := flowAt(flow.Position{Key: flow.Key{Destination: flow.Destination{Address: filter.Addresses.Addr()}}})
		for e := range f.byAddress.from(probe) {
			if !filter.Addresses.Contains(e.Destination.Address) {
				return
			}
			page.offer(e.FlowEvent)
		}
	case filter.Policy != "":
		for e := range f.byPolicy.from(flowAt(flow.Position{Node: filter.Node, Key: flow.Key{Policy: filter.Policy}})) {
			if e.Policy != filter.Policy {
				return
			}
			page.offer(e.FlowEvent)
		}
	default:
		f.collectInOrder(page)
	}
}

// collectByName goes through the events of the names at and below the labels behind the pattern's `*`.
func (f *Flows) collectByName(page *flowPage) {
	base := page.filter.Domain.Base()
	if base.IsZero() || base.String() == "." {
		f.collectInOrder(page)
		return
	}
	for item := range f.byName.from(flowName{base, flowAt(flow.Position{})}) {
		if !below(item.name.String(), base.String()) {
			return
		}
		page.offer(item.entry.FlowEvent)
	}
}

// collectInOrder goes through all events, or those of one node, until the page is full.
func (f *Flows) collectInOrder(page *flowPage) {
	start, of := &flowEntry{FlowEvent: page.behind}, page.filter.Node
	if begin := flowAt(flow.Position{Node: of}); compareFlows(begin, start) > 0 {
		start = begin
	}
	for e := range f.byPosition.from(start) {
		if of != (node.ID{}) && e.Node != of || page.full() {
			return
		}
		page.offer(e.FlowEvent)
	}
}

// flowPage keeps the first events, in order, of those offered. limit 0 keeps all, in no order.
type flowPage struct {
	filter *flow.Filter
	behind *FlowEvent // an event of that position
	limit  int
	found  []*FlowEvent
}

func (p *flowPage) full() bool { return p.limit > 0 && len(p.found) >= p.limit }

func (p *flowPage) offer(e *FlowEvent) {
	if !p.filter.Match(e.Node, &e.Event) || e.compare(p.behind) <= 0 {
		return
	}
	if p.limit == 0 {
		p.found = append(p.found, e)
		return
	}
	if p.full() && e.compare(p.found[len(p.found)-1]) >= 0 {
		return
	}
	at, exists := slices.BinarySearchFunc(p.found, e, (*FlowEvent).compare)
	if exists {
		return // found by two names
	}
	if p.full() {
		p.found = p.found[:p.limit-1]
	}
	p.found = slices.Insert(p.found, at, e)
}
