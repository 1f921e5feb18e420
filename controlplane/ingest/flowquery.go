package ingest

import (
	"slices"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/flow"
	"github.com/nameward/nameward/api/node"
)

// flowScanAtOnce is how many flow events a list looks at before it lets those write who wait. It looks at all that there
// are, and so goes by them more gently than lists of mappings.
const flowScanAtOnce = 512

// List returns up to limit flow events that the filter selects, in order, behind the position after, and
// whether there are more. It never holds writers up for long: what is told while it looks may be listed or not.
func (f *Flows) List(filter flow.Filter, after flow.Position, limit int) (events []*FlowEvent, more bool) {
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
	switch base := filter.Domain.Base(); {
	case filter.Domain != domain.Pattern{} && !base.IsZero() && !base.IsRoot():
		// The names at and below the labels behind the pattern's `*`.
		offer(f, &f.byName, flowName{base, flowAt(flow.Position{})}, func(item flowName) bool {
			page.offer(item.entry.FlowEvent)
			return below(item.name.String(), base.String())
		})
	case filter.Domain != domain.Pattern{}:
		f.collectInOrder(page)
	case filter.Addresses.IsValid() && filter.Addresses.Bits() > 0:
		probe := flowAt(flow.Position{Key: flow.Key{Destination: flow.Destination{Address: filter.Addresses.Addr()}}})
		offer(f, &f.byAddress, probe, func(e *flowEntry) bool {
			page.offer(e.FlowEvent)
			return filter.Addresses.Contains(e.Destination.Address)
		})
	case filter.Policy != "":
		probe := flowAt(flow.Position{Node: filter.Node, Key: flow.Key{Policy: filter.Policy}})
		offer(f, &f.byPolicy, probe, func(e *flowEntry) bool {
			page.offer(e.FlowEvent)
			return e.Policy == filter.Policy
		})
	default:
		f.collectInOrder(page)
	}
}

// collectInOrder goes through all events, or those of one node, until the page is full.
func (f *Flows) collectInOrder(page *flowPage) {
	start, of := &flowEntry{FlowEvent: page.behind}, page.filter.Node
	if begin := flowAt(flow.Position{Node: of}); compareFlows(begin, start) > 0 {
		start = begin
	}
	offer(f, &f.byPosition, start, func(e *flowEntry) bool {
		page.offer(e.FlowEvent)
		return (of == node.ID{} || e.Node == of) && !page.full()
	})
}

// offer calls take with the items of an index from one on until it returns false. In between it lets those write who
// wait: what an item is found by stays as it is, also when the item has gone.
func offer[T any](f *Flows, index *sorted[T], from T, take func(T) bool) {
	for more, resumed := true, false; more; resumed = true {
		f.mu.RLock()
		more = offerSome(index, &from, resumed, take)
		f.mu.RUnlock()
	}
}

// offerSome goes on behind an item where it has been taken already. It reports whether there are more, and moves on to
// the last that it took.
func offerSome[T any](index *sorted[T], at *T, taken bool, take func(T) bool) (more bool) {
	begin, left := *at, flowScanAtOnce
	for item := range index.from(begin) {
		if taken && index.compare(item, begin) == 0 {
			continue
		}
		if !take(item) {
			return false
		}
		if *at, left = item, left-1; left == 0 {
			return true
		}
	}
	return false
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
