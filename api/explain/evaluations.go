package explain

import (
	"fmt"
	"slices"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/ruleset"
)

// evaluations lists what became of every policy and rule, in order of evaluation; policies that do not
// apply to the node stand where they would be asked.
func (a *answer) evaluations(j *judgement) []*namewardv1.RuleEvaluation {
	rules := a.facts.Rules
	passedOver := slices.SortedFunc(slices.Values(a.facts.PassedOver), func(x, y PassedOver) int { return x.Policy.Compare(y.Policy) })
	var messages []*namewardv1.RuleEvaluation
	decider := map[ruleset.Mode]string{
		ruleset.Enforce: fmt.Sprintf("rule %d of %s", j.Rule, j.Policy),
		ruleset.Audit:   fmt.Sprintf("rule %d of %s", j.AuditRule, j.AuditPolicy),
	}
	for _, e := range j.Evaluations {
		policy := rules.Policies[e.Policy]
		for e.Rule < 0 && len(passedOver) > 0 && passedOver[0].Policy.Compare(policy) < 0 {
			messages, passedOver = append(messages, passedOver[0].message()), passedOver[1:]
		}
		message := policyMessage(policy)
		message.Outcome = toOutcome(e.Outcome)
		switch {
		case e.Outcome == ruleset.OtherWorkload:
			message.Reason = passedOverText(policy, j.connection)
		case e.Rule < 0:
			message.Reason = selectedText(policy, j.connection)
			if len(policy.Rules) == 0 {
				message.Reason += ", and has no rules, so that it allows nothing"
			}
		default:
			message.Rule = new(int32(e.Rule)) //nolint:gosec // a policy has at most 10,000 rules
			message.Action, message.Matched = policy.Rules[e.Rule].Action.ToProto(), e.Outcome.Matched()
			message.Reason, message.Match = j.ruleText(rules, e), toMatch(e.Match)
			if e.Outcome == ruleset.DecidedBefore {
				message.Reason += "; " + decider[policy.Mode] + " decided before"
			}
		}
		messages = append(messages, message)
	}
	for _, p := range passedOver {
		messages = append(messages, p.message())
	}
	return messages
}

func (p PassedOver) message() *namewardv1.RuleEvaluation {
	message := policyMessage(p.Policy)
	message.Outcome, message.Reason = p.Outcome, p.Reason
	return message
}

// policyMessage returns what is said of a whole policy.
func policyMessage(policy ruleset.Policy) *namewardv1.RuleEvaluation {
	return &namewardv1.RuleEvaluation{Policy: policy.Name, Priority: policy.Priority, Mode: policy.Mode.ToProto(), Rule: new(int32(-1))}
}

func toOutcome(outcome ruleset.Outcome) namewardv1.RuleEvaluation_Outcome {
	return [...]namewardv1.RuleEvaluation_Outcome{
		ruleset.Selects:          namewardv1.RuleEvaluation_SELECTS,
		ruleset.OtherWorkload:    namewardv1.RuleEvaluation_OTHER_WORKLOAD,
		ruleset.Decides:          namewardv1.RuleEvaluation_DECIDES,
		ruleset.DecidedBefore:    namewardv1.RuleEvaluation_DECIDED_BEFORE,
		ruleset.OtherDestination: namewardv1.RuleEvaluation_OTHER_DESTINATION,
		ruleset.OtherPorts:       namewardv1.RuleEvaluation_OTHER_PORTS,
	}[outcome]
}

func toMatch(match ruleset.Match) *namewardv1.DestinationMatch {
	switch {
	case match.CIDR.IsValid():
		return &namewardv1.DestinationMatch{Cidr: match.CIDR.String()}
	case match.Pattern.String() != "":
		return &namewardv1.DestinationMatch{Pattern: match.Pattern.String(), DomainSet: match.DomainSet, Domain: match.Name.String()}
	default:
		return nil
	}
}
