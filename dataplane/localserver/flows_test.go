package localserver_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/nameward/nameward/api/flow"
	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/dataplane/observe"
)

func stop(flows *observe.Flows, source string, port uint16) {
	flows.Record(flow.Key{
		Reason:      flow.NoRule,
		Workload:    flow.Workload{Address: netip.MustParseAddr(source)},
		Destination: flow.Destination{Address: netip.MustParseAddr("192.0.2.1"), Port: port, Protocol: 6},
	}, time.Now())
}

func TestListFlowEvents(t *testing.T) {
	flows := observe.NewFlows(0)
	for port := range uint16(7) {
		stop(flows, "10.1.0.7", port)
	}
	stop(flows, "10.1.0.8", 443)
	client, _, _ := serveFlows(t, nil, observe.NewTable(0, 0), flows)
	var got []uint16
	request := &namewardv1.ListFlowEventsRequest{Filter: &namewardv1.FlowEventFilter{Workload: "10.1.0.7"}, PageSize: 3}
	for pages := 1; ; pages++ {
		page, err := client.ListFlowEvents(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.GetFlowEvents() {
			if e.GetNode() != "nodes/lab" || e.GetWorkload().GetAddress() != "10.1.0.7" {
				t.Errorf("got %v, want one of 10.1.0.7 on nodes/lab", e)
			}
			got = append(got, uint16(e.GetDestination().GetPort())) //nolint:gosec // a port
		}
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			if pages != 3 {
				t.Errorf("%d pages, want 3", pages)
			}
			break
		}
	}
	if want := []uint16{0, 1, 2, 3, 4, 5, 6}; !slices.Equal(got, want) {
		t.Errorf("ports %v, want %v", got, want)
	}
	_, err := client.ListFlowEvents(t.Context(), &namewardv1.ListFlowEventsRequest{
		Filter: &namewardv1.FlowEventFilter{Domain: "a..b"}, PageSize: -1, PageToken: "nonsense",
	})
	faults := violations(t, err)
	for _, field := range []string{"filter.domain", "page_size", "page_token"} {
		if faults[field] == "" {
			t.Errorf("violations = %v, want one of %s", faults, field)
		}
	}
}

func TestWatchEvents(t *testing.T) {
	table, flows := observe.NewTable(0, 0), observe.NewFlows(0)
	learn(t, table, "192.0.2.1", "a.example")
	stop(flows, "10.1.0.7", 443)
	stop(flows, "10.1.0.8", 443)
	client, _, _ := serveFlows(t, nil, table, flows)
	watch := func(request *agentv1.WatchEventsRequest) func() string {
		stream, err := client.WatchEvents(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		return func() string {
			event, err := stream.Recv()
			switch {
			case err != nil:
				return status.Code(err).String()
			case event.GetSynced():
				return "synced"
			case event.GetMapping() != nil:
				return event.GetMapping().GetDomain()
			}
			e := event.GetFlowEvent()
			return strings.Repeat("stopped ", int(e.GetCount())) + e.GetWorkload().GetAddress() //nolint:gosec // few
		}
	}
	every := watch(&agentv1.WatchEventsRequest{})
	of8 := watch(&agentv1.WatchEventsRequest{
		Kinds:           []agentv1.WatchEventsRequest_Kind{agentv1.WatchEventsRequest_FLOW_EVENT},
		FlowEventFilter: &namewardv1.FlowEventFilter{Workload: "10.1.0.8"},
	})
	mappings := watch(&agentv1.WatchEventsRequest{Kinds: []agentv1.WatchEventsRequest_Kind{agentv1.WatchEventsRequest_MAPPING}})
	want := func(what string, next func() string, events ...string) {
		t.Helper()
		for _, want := range events {
			if got := next(); got != want {
				t.Errorf("%s: got %q, want %q", what, got, want)
			}
		}
	}
	want("all there is", every, "a.example", "stopped 10.1.0.7", "stopped 10.1.0.8", "synced")
	want("flow events of one", of8, "stopped 10.1.0.8", "synced")
	want("mappings", mappings, "a.example", "synced")
	stop(flows, "10.1.0.8", 443)
	want("again", every, "stopped stopped 10.1.0.8")
	want("again, of one", of8, "stopped stopped 10.1.0.8")
	learn(t, table, "192.0.2.2", "b.example")
	want("a new mapping", every, "b.example")
	want("a new mapping alone", mappings, "b.example")

	bad := watch(&agentv1.WatchEventsRequest{
		Kinds: []agentv1.WatchEventsRequest_Kind{7}, MappingFilter: &namewardv1.MappingFilter{Domain: "a..b"},
		FlowEventFilter: &namewardv1.FlowEventFilter{Workload: "nobody"},
	})
	want("bad", bad, codes.InvalidArgument.String())
}
