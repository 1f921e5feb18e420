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
