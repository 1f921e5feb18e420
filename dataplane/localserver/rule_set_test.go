package localserver_test

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/dataplane/observe"
)

func oneRule(t *testing.T) *ruleset.RuleSet {
	t.Helper()
	rules, err := ruleset.FromProto(&agentv1.RuleSet{Policies: []*agentv1.RuleSetPolicy{{
		Name: "policies/web", Mode: namewardv1.Policy_ENFORCE, Established: namewardv1.Policy_CUT,
		Workloads: []*namewardv1.Workload{{Host: true}},
		Rules:     []*namewardv1.Rule{{Action: namewardv1.Rule_ALLOW, Domains: []string{"*.example.com"}}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

func TestRuleSetInForceIsRead(t *testing.T) {
	rules := oneRule(t)
	client, _, _ := serve(t, rules, observe.NewTable(0, 0))
	got, err := client.GetRuleSet(t.Context(), &namewardv1.GetRuleSetRequest{Node: "nodes/lab"})
	if err != nil || got.GetRuleSetId() != rules.ID().String() || !got.GetInForce() || len(got.GetPolicies()) != 1 {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := client.GetRuleSet(t.Context(), &namewardv1.GetRuleSetRequest{Node: "nodes/other"}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("of another node: %v", err)
	}
	without, _, _ := serve(t, nil, observe.NewTable(0, 0))
	if _, err := without.GetRuleSet(t.Context(), &namewardv1.GetRuleSetRequest{}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("without one: %v", err)
	}
}

func TestMappingsOfAPolicy(t *testing.T) {
	table := observe.NewTable(0, 0)
	learn(t, table, "192.0.2.1", "api.example.com")
	learn(t, table, "192.0.2.2", "api.example.org")
	client, _, _ := serve(t, oneRule(t), table)
	list := func(policy string) (*namewardv1.ListMappingsResponse, error) {
		return client.ListMappings(t.Context(), &namewardv1.ListMappingsRequest{Filter: &namewardv1.MappingFilter{Policy: policy}})
	}
	if got, err := list("policies/web"); err != nil || len(got.GetMappings()) != 1 || got.GetMappings()[0].GetAddress() != "192.0.2.1" {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := list("policies/none"); status.Code(err) != codes.InvalidArgument {
		t.Errorf("of a policy that is not in force: %v", err)
	}
}
