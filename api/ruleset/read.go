package ruleset

import (
	"slices"

	"github.com/nameward/nameward/api/domain"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

// MaxInlineDomains is how many domains a DomainSet message has at most.
const MaxInlineDomains = 10_000

// Message returns the rule set as clients read it: without the domains of sets that have too many.
func (rs *RuleSet) Message() *namewardv1.GetRuleSetResponse {
	message := &namewardv1.GetRuleSetResponse{RuleSetId: rs.ID().String()}
	for _, policy := range rs.Policies {
		p := policy.ToProto()
		message.Policies = append(message.Policies, &namewardv1.Policy{
			Name: p.GetName(), Priority: p.GetPriority(), Mode: p.GetMode(), Established: p.GetEstablished(),
			Workloads: p.GetWorkloads(), Rules: p.GetRules(),
		})
	}
	for _, set := range rs.DomainSets {
		s := &namewardv1.DomainSet{Name: set.Name, DomainCount: int32(len(set.Domains))} //nolint:gosec // at most 2^20
		if len(set.Domains) <= MaxInlineDomains {
			s.Domains = texts(set.Domains)
		}
		message.DomainSets = append(message.DomainSets, s)
	}
	return message
}

// Covers reports whether a pattern of one of the policy's rules matches the name, or one of their domain sets.
func (rs *RuleSet) Covers(p Policy, name domain.Name) bool {
	return slices.ContainsFunc(p.Rules, func(r Rule) bool {
		_, ok := rs.MatchName(r, name)
		return ok
	})
}
