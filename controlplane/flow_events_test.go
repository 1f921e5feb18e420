package controlplane_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

// stopped is a flow event as an agent tells it, whose count began at a time.
func stopped(address string, count uint64, began time.Time, domains ...string) *namewardv1.FlowEvent {
	rule := int32(0)
	return &namewardv1.FlowEvent{
		Verdict: namewardv1.Verdict_DENY, Mode: namewardv1.Policy_ENFORCE, Node: "nodes/an-impostor",
		Reason: namewardv1.FlowEvent_RULE, Policy: "policies/web", Rule: &rule, Domains: domains, Count: count,
		Workload:    &namewardv1.FlowEvent_Workload{Address: "10.1.0.7"},
		Destination: &namewardv1.FlowEvent_Destination{Address: address, Port: 443, Protocol: namewardv1.Protocol_TCP},
		FirstTime:   timestamppb.New(began), LastTime: timestamppb.New(began.Add(time.Duration(count) * time.Millisecond)),
	}
}

func TestFlowEventsAreListedAndWatched(t *testing.T) {
	s := start(t, t.TempDir())
	a := newAgent(t, "n", nil)
	a.connect(s.connection)
	a.complete()
	began := time.Now().Add(-time.Minute)
	unreadable := stopped("ten", 1, began)
	a.tell(&agentv1.Observations{FlowEvents: []*namewardv1.FlowEvent{
		stopped("192.0.2.1", 3, began, "www.example.com"), unreadable, stopped("192.0.2.2", 1, began),
	}})
	list := func(filter *namewardv1.FlowEventFilter) string {
		t.Helper()
		var found []string
		request := &namewardv1.ListFlowEventsRequest{Filter: filter, PageSize: 1}
		for {
			page, err := s.mappings.ListFlowEvents(t.Context(), request)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range page.GetFlowEvents() {
				if e.Rule == nil || e.GetPolicy() != "policies/web" || e.GetNode() != "nodes/n" {
					t.Errorf("got %v, want rule 0 of policies/web on nodes/n", e)
				}
				found = append(found, fmt.Sprintf("%d× %s", e.GetCount(), e.GetDestination().GetAddress()))
			}
			if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
				return strings.Join(found, ", ")
			}
		}
	}
	want := func(filter *namewardv1.FlowEventFilter, want string) {
		t.Helper()
		if got := list(filter); got != want {
			t.Errorf("filter %v: got %q, want %q", filter, got, want)
		}
	}
	want(nil, "3× 192.0.2.1, 1× 192.0.2.2")
	want(&namewardv1.FlowEventFilter{Domain: "*.example.com"}, "3× 192.0.2.1")
	want(&namewardv1.FlowEventFilter{Node: "nodes/an-impostor"}, "")

	watch, err := s.mappings.WatchFlowEvents(t.Context(), &namewardv1.WatchFlowEventsRequest{Filter: &namewardv1.FlowEventFilter{Address: "192.0.2.1"}})
	if err != nil {
		t.Fatal(err)
	}
	next := func() string {
		t.Helper()
		response, err := watch.Recv()
		switch {
		case err != nil:
			return status.Code(err).String()
		case response.GetSynced():
			return "synced"
		}
		return fmt.Sprintf("%d× %s", response.GetFlowEvent().GetCount(), response.GetFlowEvent().GetDestination().GetAddress())
	}
	wantNext := func(want ...string) {
		t.Helper()
		for _, want := range want {
			if got := next(); got != want {
				t.Errorf("watch: got %q, want %q", got, want)
			}
		}
	}
	wantNext("3× 192.0.2.1", "synced")
	// The stream breaks, and a new one tells what the agent holds.
	a.leave()
	a.connect(s.connection)
	defer a.leave()
	a.tell(&agentv1.Observations{FlowEvents: []*namewardv1.FlowEvent{stopped("192.0.2.1", 3, began, "www.example.com"), stopped("192.0.2.2", 2, began)}})
	want(nil, "3× 192.0.2.1, 2× 192.0.2.2")
	// The agent was restarted, and counts anew.
	a.tell(&agentv1.Observations{FlowEvents: []*namewardv1.FlowEvent{stopped("192.0.2.1", 2, time.Now())}})
	want(nil, "5× 192.0.2.1, 2× 192.0.2.2")
	wantNext("5× 192.0.2.1")

	_, err = s.mappings.ListFlowEvents(t.Context(), &namewardv1.ListFlowEventsRequest{Filter: &namewardv1.FlowEventFilter{Workload: "somebody"}})
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "filter.workload") {
		t.Errorf("a bad filter got %v", err)
	}
	s.stop()
	wantNext(codes.Unavailable.String())
}
