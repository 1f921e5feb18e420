package ruleset

import (
	"github.com/nameward/nameward/api/domain"
)

// Refusal says whether the question of a workload for a name is refused on the node.
type Refusal struct {
	// Refused: the policies in mode Enforce refuse it.
	Refused bool
	// Policy and Rule decided, for refusing or not; Policy is empty when no rule matches the name.
	Policy string
	Rule   int
	Match  Match
	// AuditRefused: the policies in mode Audit would have refused it. The rest is how that came about.
	AuditRefused bool
	AuditPolicy  string
	AuditRule    int
	AuditMatch   Match
}

// Refuses evaluates a question for a name, asked by the workload of a connection. Of each mode, the
// first rule decides that matches the name by its domains or domain sets, or that names no destination at all; ports
// do not count, and a rule with only CIDRs matches no name.
func (rs *RuleSet) Refuses(c Connection, name domain.Name) Refusal {
	refusal := Refusal{Rule: -1, AuditRule: -1}
	var decided [Disabled]bool // by mode
	for _, policy := range rs.Policies {
		if decided[policy.Mode] || !policy.Selects(c) {
			continue
		}
		for i, rule := range policy.Rules {
			match, ok := rs.matchQuestion(rule, name)
			if !ok {
				continue
			}
			decided[policy.Mode] = true
			if policy.Mode == Audit {
				refusal.AuditRefused, refusal.AuditPolicy, refusal.AuditRule, refusal.AuditMatch = rule.RefusesQueries, policy.Name, i, match
			} else {
				refusal.Refused, refusal.Policy, refusal.Rule, refusal.Match = rule.RefusesQueries, policy.Name, i, match
			}
			break
		}
	}
	return refusal
}

func (rs *RuleSet) matchQuestion(r Rule, name domain.Name) (Match, bool) {
	if r.AnyDestination() {
		return Match{Every: true}, true
	}
	return rs.MatchName(r, name)
}
