package ingest_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/nameward/nameward/api/flow"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/controlplane/ingest"
)

// A node that floods pushes out mappings of its own alone, and none lives longer than is believed.
func TestOneNodeHasItsShareOfMappings(t *testing.T) {
	const limit, share = 20_000, 5000
	table := ingest.New(limit)
	honest, flooding := nodeID(t, "honest"), nodeID(t, "flooding")
	batch := func(node string, first, count int, ends time.Time) (b ingest.Batch) {
		for i := first; i < first+count; i++ {
			b.Mappings = append(b.Mappings, mapping(t, node, fmt.Sprintf("n%d.example 192.0.2.1", i), ends))
		}
		return b
	}
	table.Observe(honest, batch("honest", 0, 100, start.Add(time.Minute)), start)
	for i := range 5 {
		table.Observe(flooding, batch("flooding", i*share, share, start.AddDate(1000, 0, 0)), start)
	}
	if got := len(table.List(filter(t, "", "", "nodes/honest"), ingest.Cursor{}, 1000, start).Mappings); got != 100 {
		t.Errorf("the honest node has %d mappings, want 100", got)
	}
	stats := table.Stats()
	if own := stats.Mappings - 100; own > share || own < share*15/16-1 || stats.Evicted == 0 {
		t.Errorf("the flooding node has %d mappings, %d were evicted", own, stats.Evicted)
	}
	for _, m := range table.List(filter(t, "", "", "nodes/flooding"), ingest.Cursor{}, 10, start).Mappings {
		if m.Expires.After(start.AddDate(0, 0, 32)) {
			t.Errorf("a mapping lives until %v", m.Expires)
		}
	}
}

// The same of flow events.
func TestOneNodeHasItsShareOfFlowEvents(t *testing.T) {
	const limit, share = 20_000, 5000
	flows := ingest.NewFlows(limit)
	honest, flooding := nodeID(t, "honest"), nodeID(t, "flooding")
	events := func(first, count int) (list []*flow.Event) {
		for i := first; i < first+count; i++ {
			e, err := flow.FromProto(&namewardv1.FlowEvent{
				Mode: namewardv1.Policy_ENFORCE, Reason: namewardv1.FlowEvent_NO_RULE, Count: 1,
				Workload:    &namewardv1.FlowEvent_Workload{Address: "10.1.0.7"},
				Destination: &namewardv1.FlowEvent_Destination{Address: fmt.Sprintf("10.2.%d.%d", i>>8, i&255), Port: 443, Protocol: namewardv1.Protocol_TCP},
				FirstTime:   timestamppb.New(start), LastTime: timestamppb.New(start),
			})
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, e)
		}
		return list
	}
	flows.Observe(honest, events(0, 100), start)
	for i := range 5 {
		flows.Observe(flooding, events(i*share, share), start)
	}
	stats := flows.Stats()
	if own := stats.Events - 100; own > share || own < share*15/16-1 || stats.Evicted == 0 {
		t.Errorf("the flooding node has %d events of %d, %d were evicted", own, stats.Events, stats.Evicted)
	}
	parsed, err := flow.ParseFilter("filter", &namewardv1.FlowEventFilter{Node: "nodes/honest"})
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := flows.List(parsed, flow.Position{}, 1000); len(got) != 100 {
		t.Errorf("the honest node has %d events, want 100", len(got))
	}
}
