package ruleset

import (
	"slices"

	"github.com/nameward/nameward/api/domain"
)

// Refusal says whether the question of a workload for a name is refused on the node.
type Refusal struct {
	// Refused: by the rule at position Rule of Policy, in mode Enforce.
	Refused bool
	Policy  string
	Rule    int
	// AuditRefused: the policies in mode Audit would have refused it.
	AuditRefused bool
}

// Refuses evaluates a question for a name, asked by the workload of a connection. Of each mode, the
// first rule decides that matches the name by its domains or domain sets, or that names no destination at all; ports
// do not count, and a rule with only CIDRs matches no name.
func (rs *RuleSet) Refuses(c Connection, name domain.Name) Refusal {
	refusal := Refusal{Rule: -1}
	decided := map[bool]bool{}
	for _, policy := range rs.Policies {
		audit := policy.Mode == Audit
		if decided[audit] || !slices.ContainsFunc(policy.Workloads, func(w Workload) bool { return w.selects(c) }) {
			continue
		}
		i := slices.IndexFunc(policy.Rules, func(r Rule) bool { return rs.matchesQuestion(r, name) })
		if i < 0 {
			continue
		}
		decided[audit] = true
		switch {
		case !policy.Rules[i].RefusesQueries:
		case audit:
			refusal.AuditRefused = true
		default:
			refusal.Refused, refusal.Policy, refusal.Rule = true, policy.Name, i
		}
	}
	return refusal
}

func (rs *RuleSet) matchesQuestion(r Rule, name domain.Name) bool {
	_, matches := rs.matchName(r, name)
	return matches || r.AnyDestination()
}
