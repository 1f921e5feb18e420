package ingest

import (
	"context"
	"slices"

	"github.com/nameward/nameward/api/flow"
	"github.com/nameward/nameward/api/node"
)

// FlowWatch follows the flow events that a filter selects. Close must be called.
type FlowWatch struct {
	// Known is what was known when the watch began, in order.
	Known []*FlowEvent

	flows  *Flows
	filter flow.Filter
	// of is true of the nodes whose events count; nil for all.
	of func(node.ID) bool
	// changes is closed when one did not fit, under flows.mu.
	changes chan *FlowEvent
}

// Watch begins a watch.
func (f *Flows) Watch(filter flow.Filter) *FlowWatch { return f.watch(filter, nil, watchBuffer) }

// WatchOf begins a watch of the events of nodes of which a function is true, whose reader may be so many behind. The
// function is called under a lock.
func (f *Flows) WatchOf(of func(node.ID) bool, ahead int) *FlowWatch {
	return f.watch(flow.Filter{}, of, ahead)
}

func (f *Flows) watch(filter flow.Filter, of func(node.ID) bool, ahead int) *FlowWatch {
	w := &FlowWatch{flows: f, filter: filter, of: of, changes: make(chan *FlowEvent, ahead)}
	page := flowPage{filter: &filter, behind: flowAt(flow.Position{}).FlowEvent}
	f.mu.Lock()
	f.watches[w] = struct{}{}
	f.mu.Unlock()
	// From here on no change is missed. One that comes while the snapshot is taken may be in both, and what follows
	// the snapshot ends with what is true.
	f.collect(&page)
	slices.SortFunc(page.found, (*FlowEvent).compare)
	w.Known = slices.CompactFunc(page.found, func(a, b *FlowEvent) bool { return a.compare(b) == 0 })
	if of != nil {
		w.Known = slices.DeleteFunc(w.Known, func(e *FlowEvent) bool { return !of(e.Node) })
	}
	return w
}

// Next waits for a flow event that is new or was seen again. ErrSlow when some were lost, the error of ctx
// when it ends.
func (w *FlowWatch) Next(ctx context.Context) (*FlowEvent, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case e, ok := <-w.changes:
		if !ok {
			return nil, ErrSlow
		}
		return e, nil
	}
}

// Changes returns the events; it is closed when some were lost.
func (w *FlowWatch) Changes() <-chan *FlowEvent { return w.changes }

// Close ends the watch.
func (w *FlowWatch) Close() {
	w.flows.mu.Lock()
	defer w.flows.mu.Unlock()
	delete(w.flows.watches, w)
}

// announce tells those who watch. Who has no room left for it is cut off. f.mu is held.
func (f *Flows) announce(e *FlowEvent) {
	for w := range f.watches {
		if !w.filter.Match(e.Node, &e.Event) || w.of != nil && !w.of(e.Node) {
			continue
		}
		select {
		case w.changes <- e:
		default:
			delete(f.watches, w)
			close(w.changes)
			f.stats.CutOff++
		}
	}
}
