package e2e_test

import (
	"testing"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/e2e/lab"
)

// TestExplainDomainSet: server, agent and kernel agree on what a domain set matches, and explain names it.
func TestExplainDomainSet(t *testing.T) {
	f := newFleet(t)
	e := newExplainer(f)
	_, err := namewardv1.NewDomainSetServiceClient(f.conn).CreateDomainSet(t.Context(), &namewardv1.CreateDomainSetRequest{
		DomainSetId: "saas", DomainSet: &namewardv1.DomainSet{Domains: []string{"*.shop.example", "late.example"}},
	})
	f.must(err)
	policy := clientPolicy()
	policy.Rules[0].DomainSets = []string{"domainSets/saas"}
	f.put(policy)
	for name, pattern := range map[string]string{"www.shop.example": "*.shop.example", "late.example": "late.example", "evil.example": ""} {
		address := f.learn(t, lab.ResolverV4, name)
		answer := e.explain(t, &namewardv1.ExplainConnectionRequest{Workload: lab.ClientV4.String(), Destination: address.String(), Port: lab.ServicePort})
		passed, err := f.try(f.Client, namewardv1.Protocol_TCP, address, lab.ServicePort)
		if err != nil || passed != (pattern != "") || passed != (answer.GetVerdict() == namewardv1.Verdict_ALLOW) {
			t.Errorf("%s: passes %v, %v, explained as %v: %s", name, passed, err, answer.GetVerdict(), answer.GetReason())
		}
		rule := answer.GetEvaluations()[1]
		if match := rule.GetMatch(); match.GetPattern() != pattern || (match.GetDomainSet() == "domainSets/saas") != passed {
			t.Errorf("%s: %v, want %q of the set", name, rule, pattern)
		}
	}
}
