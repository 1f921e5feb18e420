package ingest_test

import (
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nameward/nameward/api/flow"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/controlplane/ingest"
)

// What lives all the while is listed once, by whatever index, while others come, change and go.
func TestListsWhileOthersAreWritten(t *testing.T) {
	const stable = 3000
	table := ingest.New(1_000_000)
	var b ingest.Batch
	for i := range stable {
		b.Mappings = append(b.Mappings, mapping(t, "n", fmt.Sprintf("stable-%d.a%d.example a%d.cdn.test 10.0.%d.%d", i, i%7, i%50, i/256, i%256), start.Add(time.Hour)))
	}
	table.Observe(nodeID(t, "n"), b, start)
	var done atomic.Bool
	var writers sync.WaitGroup
	for w := range 3 {
		from := fmt.Sprintf("w%d", w)
		writers.Go(func() {
			for round := 0; !done.Load(); round++ {
				var batch ingest.Batch
				for i := range 200 {
					ends := start.Add(time.Duration(round%3-1) * time.Minute) // ended, ended, alive
					text := fmt.Sprintf("moving-%d.a%d.example a%d.cdn.test 10.0.%d.%d", (round+i)%900, i%7, (round+i)%50, i%12, i)
					batch.Mappings = append(batch.Mappings, mapping(t, from, text, ends))
				}
				table.Observe(nodeID(t, from), batch, start)
			}
		})
	}
	for _, f := range []ingest.Filter{
		{},
		filter(t, "*.example", "", ""), filter(t, "*.cdn.test", "", ""), filter(t, "", "10.0.0.0/20", ""), filter(t, "", "", "nodes/n"),
		filter(t, "stable-*.a3.example", "", ""),
	} {
		seen := map[ingest.Position]int{}
		for page := (ingest.Page{More: true}); page.More; {
			page = table.List(f, page.Next, 100, start)
			for _, m := range page.Mappings {
				if m.Node.String() == "n" {
					seen[m.Position]++
				}
			}
		}
		want := 0
		for _, m := range b.Mappings {
			if f.Match(m) {
				want++
				if seen[m.Position] != 1 {
					t.Errorf("filter %+v: %v is listed %d times", f, m.Position, seen[m.Position])
				}
			}
		}
		if len(seen) != want {
			t.Errorf("filter %+v: %d are listed, want %d", f, len(seen), want)
		}
		watch := table.Watch(f, start)
		found := 0
		for _, m := range watch.Live {
			if m.Node.String() == "n" {
				found++
			}
		}
		watch.Close()
		if found != want {
			t.Errorf("watch of %+v: %d live, want %d", f, found, want)
		}
	}
	done.Store(true)
	writers.Wait()
}

// What is there all the while is listed once, by whatever index, while other flow events come, are seen again and go.
func TestFlowListsWhileOthersAreWritten(t *testing.T) {
	const stable = 5000
	flows := ingest.NewFlows(100_000)
	var events []*flow.Event
	for i := range stable {
		events = append(events, flowEvent(t, fmt.Sprintf("10.1.0.7 10.0.%d.%d 443 p%d stable-%d.a%d.test also-%d.test", i/256, i%256, i%3, i, i%7, i), 1, start, start))
	}
	flows.Observe(nodeID(t, "n"), events, start)
	var done atomic.Bool
	var writers sync.WaitGroup
	for w := range 2 {
		from := nodeID(t, fmt.Sprintf("m%d", w))
		writers.Go(func() {
			for round := 1; !done.Load(); round++ {
				var batch []*flow.Event
				for i := range 200 {
					batch = append(batch, flowEvent(t, fmt.Sprintf("10.1.0.7 10.0.%d.%d 443 p1 moving.a%d.test", i%20, (round+i)%256, i%7), uint64(round), start, start))
				}
				flows.Observe(from, batch, start)
				if round%16 == 0 {
					flows.Forget(from)
				}
			}
		})
	}
	for _, message := range []*namewardv1.FlowEventFilter{
		{},
		{Domain: "*.test"},
		{Address: "10.0.0.0/12"},
		{Policy: "policies/p1"},
		{Node: "nodes/n"},
		{Domain: "*.a3.test", Policy: "policies/p2"},
	} {
		f := flowFilter(t, message)
		want := map[flow.Position]int{}
		for _, e := range events {
			if f.Match(nodeID(t, "n"), e) {
				want[flow.Position{Node: nodeID(t, "n"), Key: e.Key}] = 1
			}
		}
		seen := map[flow.Position]int{}
		var after flow.Position
		for more := true; more; {
			var page []*ingest.FlowEvent
			page, more = flows.List(f, after, 1000)
			for _, e := range page {
				if after = e.Position(); e.Node.String() == "n" {
					seen[after]++
				}
			}
		}
		if !maps.Equal(seen, want) {
			t.Errorf("%v: %d are listed, want %d, each once", message, len(seen), len(want))
		}
		watch := flows.Watch(f)
		known := map[flow.Position]int{}
		for _, e := range watch.Known {
			if e.Node.String() == "n" {
				known[e.Position()]++
			}
		}
		watch.Close()
		if !maps.Equal(known, want) {
			t.Errorf("a watch of %v: %d are known, want %d, each once", message, len(known), len(want))
		}
	}
	done.Store(true)
	writers.Wait()
}
