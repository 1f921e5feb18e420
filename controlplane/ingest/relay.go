package ingest

import (
	"time"

	"github.com/nameward/nameward/api/node"
)

// Adopt takes in flow events as another server holds them. Counts that both know of count once: whichever server a node
// told, and in whatever order the servers tell each other, they come to the same.
func (f *Flows) Adopt(events []*FlowEvent, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range events {
		if now.Sub(e.LastSeen) >= FlowAge {
			continue
		}
		seen := e.LastSeen
		if seen.After(now) {
			seen = now
		}
		known := f.find(e.Position())
		if known == nil {
			f.add(e, seen)
			continue
		}
		e.join(known.FlowEvent)
		f.replace(known, e, seen)
	}
}

// join makes e what it and another account of the same flow come to.
func (e *FlowEvent) join(other *FlowEvent) {
	current := e.Count - min(e.Before, e.Count)
	switch {
	case e.Began.Equal(other.Began):
		e.Before = max(e.Before, other.Before)
		current = max(current, other.Count-min(other.Before, other.Count))
	case e.Began.After(other.Began):
		e.Before = max(e.Before, other.Count)
	default:
		e.Before = max(other.Before, e.Count)
		current = other.Count - min(other.Before, other.Count)
		e.Began = other.Began
	}
	e.Count = e.Before + current
	if other.LastSeen.After(e.LastSeen) {
		e.Domains = other.Domains
	}
}

// Begin says that all mappings of nodes follow that live; Finish that they have.
func (t *Table) Begin(nodes []node.ID, now time.Time) {
	for _, id := range nodes {
		t.Observe(id, Batch{SnapshotBegin: true}, now)
	}
}

// Finish ends the mappings of nodes that did not occur since Begin.
func (t *Table) Finish(nodes []node.ID, now time.Time) {
	for _, id := range nodes {
		t.Observe(id, Batch{SnapshotEnd: true}, now)
	}
}
