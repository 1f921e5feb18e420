package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

func TestRatesAreBetweenTwoLooks(t *testing.T) {
	look := func(name string, counters map[string]uint64) *namewardv1.Node {
		return &namewardv1.Node{Name: name, Status: &namewardv1.NodeStatus{Connected: true, Counters: counters}}
	}
	before := map[string]map[string]uint64{"nodes/a": {"verdicts_deny": 100, "verdicts_allow": 7}, "nodes/gone": {}}
	rates := fleetRatesOf([]*namewardv1.Node{
		look("nodes/a", map[string]uint64{"verdicts_deny": 120, "verdicts_allow": 7, "dns_responses_learned": 4}),
		look("nodes/new", map[string]uint64{"verdicts_deny": 1000}),
	}, before, 2*time.Second, time.Now())
	want := []nodeRates{{Node: "nodes/a", State: "current", Deny: 10, Learned: 2}, {Node: "nodes/new", State: "current"}}
	if diff := cmp.Diff(want, rates.Nodes); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// A datapath that was made anew counts from zero.
	rates = fleetRatesOf([]*namewardv1.Node{look("nodes/a", map[string]uint64{"verdicts_deny": 3})}, before, time.Second, time.Now())
	if got := rates.Nodes[0].Deny; got != 0 {
		t.Errorf("after a reset: %v a second, want 0", got)
	}
}

// Counts are compared flow event by flow event: one that came, one that was forgotten and began anew, and one that is
// as it was.
func TestFlowRatesAreBetweenTwoLooks(t *testing.T) {
	flow := func(node, address string, mode namewardv1.Policy_Mode, policy string, count uint64, domains ...string) *namewardv1.FlowEvent {
		return &namewardv1.FlowEvent{
			Verdict: namewardv1.Verdict_DENY, Mode: mode, Node: "nodes/" + node, Workload: &namewardv1.FlowEvent_Workload{Address: address},
			Destination: &namewardv1.FlowEvent_Destination{Address: "192.0.2.1", Port: 443, Protocol: namewardv1.Protocol_TCP},
			Policy:      policy, Reason: namewardv1.FlowEvent_NO_RULE, Domains: domains, Count: count,
		}
	}
	const enforce, audit = namewardv1.Policy_ENFORCE, namewardv1.Policy_AUDIT
	before := []*namewardv1.FlowEvent{
		flow("a", "10.1.0.1", enforce, "", 100, "a.example", "old.example"), flow("b", "10.1.0.1", enforce, "policies/p", 50, "a.example"), flow("b", "10.1.0.2", audit, "policies/p", 7),
	}
	after := []*namewardv1.FlowEvent{
		flow("a", "10.1.0.1", enforce, "", 110, "a.example"), flow("b", "10.1.0.1", enforce, "policies/p", 20, "a.example"),
		flow("b", "10.1.0.2", audit, "policies/p", 7), flow("c", "10.1.0.3", audit, "policies/q", 4, "b.example"),
	}
	for by, want := range map[string][]groupRates{
		byDomain:   {{"192.0.2.1", 0, 0, 0, 7, 1}, {"a.example", 5, 0, 130, 0, 2}, {"b.example", 0, 2, 0, 4, 1}},
		byWorkload: {{"10.1.0.1", 5, 0, 130, 0, 2}, {"10.1.0.2", 0, 0, 0, 7, 1}, {"10.1.0.3", 0, 2, 0, 4, 1}},
		byPolicy:   {{"no rule", 5, 0, 110, 0, 1}, {"policies/p", 0, 0, 20, 7, 1}, {"policies/q", 0, 2, 0, 4, 1}},
	} {
		if diff := cmp.Diff(want, groupsOf(after, by, countsOf(before), 2*time.Second)); diff != "" {
			t.Errorf("by %s (-want +got):\n%s", by, diff)
		}
	}
}
