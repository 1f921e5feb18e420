package explain

import (
	"fmt"
	"slices"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/ruleset"
)

// judgement is what becomes of the connection to one address, or to a name that has none.
type judgement struct {
	ruleset.Explanation
	connection ruleset.Connection
	owners     owners
	always     namewardv1.ExplainConnectionResponse_AlwaysAllowed
	apexes     []apex // of the names, once they are needed
}

// message returns the verdict. What always passes no policy decides on.
func (j *judgement) message(rules *ruleset.RuleSet) *namewardv1.AddressVerdict {
	v := &namewardv1.AddressVerdict{Verdict: namewardv1.Verdict_ALLOW, AlwaysAllowed: j.always}
	if j.connection.Destination.IsValid() {
		v.Address = j.connection.Destination.String()
	}
	for _, name := range j.connection.Names[:min(len(j.connection.Names), maxNames)] {
		v.Domains = append(v.Domains, name.String())
	}
	if j.Audited {
		v.AuditVerdict = namewardv1.Verdict_ALLOW
	}
	if j.always != namewardv1.ExplainConnectionResponse_ALWAYS_ALLOWED_UNSPECIFIED {
		v.Reason = alwaysReason(j.always, j.connection)
		return v
	}
	v.Verdict, v.Policy, v.Reason = toVerdict(j.Verdict), j.Policy, j.reason(rules)
	if j.Policy != "" {
		v.Rule = new(int32(j.Rule)) //nolint:gosec // a policy has at most 10,000 rules
	}
	if j.Audited {
		v.AuditVerdict, v.AuditPolicy = toVerdict(j.AuditVerdict), j.AuditPolicy
	}
	if j.AuditPolicy != "" {
		v.AuditRule = new(int32(j.AuditRule)) //nolint:gosec // as above
	}
	return v
}

func toVerdict(action ruleset.Action) namewardv1.Verdict {
	if action == ruleset.Deny {
		return namewardv1.Verdict_DENY
	}
	return namewardv1.Verdict_ALLOW
}

// reason says in a sentence why the ENFORCE policies say what they do.
func (j *judgement) reason(rules *ruleset.RuleSet) string {
	switch {
	case j.Policy != "":
		return fmt.Sprintf("rule %d of %s %s: %s", j.Rule, j.Policy, says(j.Verdict), j.decidingText(rules, ruleset.Enforce))
	case j.Enforced:
		return "no rule allows it, and the workload is selected by " + list(j.selecting(rules, ruleset.Enforce), policyName)
	default:
		return "no policy in mode ENFORCE selects the workload"
	}
}

// auditReason says the same of the AUDIT policies.
func (j *judgement) auditReason(rules *ruleset.RuleSet) string {
	switch {
	case j.always != namewardv1.ExplainConnectionResponse_ALWAYS_ALLOWED_UNSPECIFIED:
		return alwaysReason(j.always, j.connection)
	case j.AuditPolicy != "":
		return fmt.Sprintf("rule %d of %s would have %s: %s", j.AuditRule, j.AuditPolicy, map[ruleset.Action]string{
			ruleset.Allow: "allowed it", ruleset.Deny: "denied it",
		}[j.AuditVerdict], j.decidingText(rules, ruleset.Audit))
	default:
		return "no rule would have allowed it, and the workload is selected by " + list(j.selecting(rules, ruleset.Audit), policyName)
	}
}

func says(verdict ruleset.Action) string {
	if verdict == ruleset.Deny {
		return "denies it"
	}
	return "allows it"
}

func policyName(policy ruleset.Policy) string { return policy.Name }

// decidingText says what of the rule that decides in a mode matches.
func (j *judgement) decidingText(rules *ruleset.RuleSet, mode ruleset.Mode) string {
	return j.ruleText(rules, j.deciding(rules, mode))
}

// deciding returns what is said of the rule that decides in a mode.
func (j *judgement) deciding(rules *ruleset.RuleSet, mode ruleset.Mode) ruleset.Evaluation {
	i := slices.IndexFunc(j.Evaluations, func(e ruleset.Evaluation) bool {
		return e.Outcome == ruleset.Decides && rules.Policies[e.Policy].Mode == mode
	})
	return j.Evaluations[i]
}

// selecting returns the policies of a mode that select the workload.
func (j *judgement) selecting(rules *ruleset.RuleSet, mode ruleset.Mode) []ruleset.Policy {
	var selecting []ruleset.Policy
	for _, e := range j.Evaluations {
		if e.Outcome == ruleset.Selects && rules.Policies[e.Policy].Mode == mode {
			selecting = append(selecting, rules.Policies[e.Policy])
		}
	}
	return selecting
}
