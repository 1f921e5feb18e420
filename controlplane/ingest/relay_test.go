package ingest_test

import (
	"testing"
	"time"

	"github.com/nameward/nameward/api/flow"
	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/controlplane/ingest"
)

// Two servers that a node told one after the other, and that tell each other, count alike and nothing twice, in
// whatever order they hear.
func TestServersCountFlowsAlike(t *testing.T) {
	id, err := node.ParseID("n")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	first, second := now.Add(-time.Hour), now.Add(-time.Minute)
	told := func(began time.Time, count uint64) []*flow.Event {
		return []*flow.Event{flowEvent(t, "10.0.0.1 192.0.2.1 443 -", count, began, began.Add(time.Duration(count)*time.Second))}
	}
	known := func(f *ingest.Flows) []*ingest.FlowEvent {
		events, _ := f.List(flow.Filter{}, flow.Position{}, 10)
		var copies []*ingest.FlowEvent
		for _, e := range events {
			c := *e
			copies = append(copies, &c)
		}
		return copies
	}
	count := func(f *ingest.Flows) uint64 { return known(f)[0].Count }
	for name, hear := range map[string]func(a, b *ingest.Flows){
		"the other first": func(a, b *ingest.Flows) {
			b.Adopt(known(a), now)
			b.Observe(id, told(second, 3), now)
			a.Adopt(known(b), now)
		},
		"the agent first": func(a, b *ingest.Flows) {
			b.Observe(id, told(second, 3), now)
			a.Adopt(known(b), now)
			b.Adopt(known(a), now)
		},
		"again and again": func(a, b *ingest.Flows) {
			b.Observe(id, told(second, 2), now)
			for range 3 {
				a.Adopt(known(b), now)
				b.Adopt(known(a), now)
			}
			b.Observe(id, told(second, 3), now)
			for range 3 {
				b.Adopt(known(a), now)
				a.Adopt(known(b), now)
			}
		},
	} {
		a, b := ingest.NewFlows(10), ingest.NewFlows(10)
		a.Observe(id, told(first, 5), now)
		hear(a, b)
		if count(a) != 8 || count(b) != 8 {
			t.Errorf("%s: %d and %d, want 8", name, count(a), count(b))
		}
	}
}
