package explain

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/nameward/nameward/api/domain"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/ruleset"
)

// toName answers for a destination that is a domain name.
func (a *answer) toName() {
	addresses, endedAt := a.addresses()
	question := a.ask()
	if len(addresses) == 0 {
		a.byText(question, endedAt)
		return
	}
	mappings := a.mappingsOf(addresses)
	of := map[netip.Addr][]Mapping{}
	for _, m := range mappings {
		of[m.Address] = append(of[m.Address], m)
	}
	var worst *judgement
	var worstVerdict *namewardv1.AddressVerdict
	denied := 0
	for _, address := range addresses {
		j := a.judge(address, of[address])
		v := j.message(a.facts.Rules)
		a.response.Addresses = append(a.response.Addresses, v)
		if v.GetVerdict() == namewardv1.Verdict_DENY {
			denied++
		}
		if worst == nil || severity(v) > severity(worstVerdict) {
			worst, worstVerdict = j, v
		}
	}
	a.decide(worst)
	if len(addresses) > 1 {
		a.response.Reason = fmt.Sprintf("%s of %s %s: %s", counted(denied, len(addresses)), a.question.Name, verdictWord(denied), a.response.GetReason())
	}
	if denied > 0 && denied < len(addresses) {
		a.note("the verdict depends on the address that is used: %d of %d are denied", denied, len(addresses))
	}
	if question.Refused {
		a.note("the name is known from before: to ask for it is refused now")
	}
}

// severity orders verdicts: what is denied tells more than what is allowed.
func severity(v *namewardv1.AddressVerdict) int {
	switch {
	case v.GetVerdict() == namewardv1.Verdict_DENY:
		return 2
	case v.GetAuditVerdict() == namewardv1.Verdict_DENY:
		return 1
	default:
		return 0
	}
}

// counted names those addresses of which a sentence tells: the denied ones, or all.
func counted(denied, all int) string {
	switch denied {
	case 0, all:
		return fmt.Sprintf("all %d addresses", all)
	default:
		return fmt.Sprintf("%d of %d addresses", denied, all)
	}
}

func verdictWord(denied int) string {
	if denied > 0 {
		return "are denied; the first"
	}
	return "are allowed; the first"
}

// addresses returns those that the name has by live mappings, of the workload's family, and when its last
// mapping ended.
func (a *answer) addresses() (addresses []netip.Addr, ended owner) {
	if a.facts.Mappings == nil {
		return nil, owner{}
	}
	mappings := a.facts.Mappings.OfName(a.question.Name)
	others, source := false, a.question.Connection.Source
	for i := range mappings {
		m := &mappings[i]
		m.each(func(o owner) {
			switch {
			case o.name != a.question.Name:
			case source.IsValid() && source.Is4() != m.Address.Is4():
				others = others || o.expiresAt.After(a.facts.Now)
			case !o.expiresAt.After(a.facts.Now):
				if o.expiresAt.After(ended.expiresAt) {
					ended = o
				}
			case !slices.Contains(addresses, m.Address):
				addresses = append(addresses, m.Address)
			}
		})
	}
	slices.SortFunc(addresses, netip.Addr.Compare)
	if others {
		a.note("addresses of the other family are left out: the workload is an %s address", family(source))
	}
	if len(addresses) == 0 {
		a.list(slices.DeleteFunc(mappings, func(m Mapping) bool { return m.ExpiresAt.After(a.facts.Now) }))
	}
	return addresses, ended
}

// ask says what becomes of the question for the name.
func (a *answer) ask() ruleset.Refusal {
	r := a.facts.Rules.Refuses(a.question.Connection, a.question.Name)
	q := &namewardv1.QuestionVerdict{
		Refused: r.Refused, Policy: r.Policy, Reason: questionText(r, a.question.Name),
		AuditRefused: r.AuditRefused, AuditPolicy: r.AuditPolicy,
	}
	if r.Policy != "" {
		q.Rule = new(int32(r.Rule)) //nolint:gosec // a policy has at most 10,000 rules
	}
	if r.AuditPolicy != "" {
		q.AuditRule = new(int32(r.AuditRule)) //nolint:gosec // as above
	}
	a.response.Question = q
	return r
}

func questionText(r ruleset.Refusal, name domain.Name) string {
	j := judgement{}
	switch {
	case r.Refused:
		return fmt.Sprintf("rule %d of %s refuses the question for %s: %s", r.Rule, r.Policy, name, j.matchText(r.Match))
	case r.Policy != "":
		return fmt.Sprintf("rule %d of %s lets it be asked: %s", r.Rule, r.Policy, j.matchText(r.Match))
	default:
		return "no rule refuses it"
	}
}

// byText judges a name without an address by the name alone.
func (a *answer) byText(question ruleset.Refusal, ended owner) {
	j := &judgement{connection: a.question.Connection}
	j.connection.Names = []domain.Name{a.question.Name}
	j.Explanation = a.facts.Rules.Decide(j.connection)
	a.decide(j)
	if a.facts.Mappings != nil {
		seen := "has not been seen"
		if !ended.expiresAt.IsZero() {
			seen = "was last a name of an address until " + timeText(ended.expiresAt)
		}
		what := "address"
		if source := j.connection.Source; source.IsValid() {
			what = family(source) + " address"
		}
		a.note("%s has no live mapping to an %s on the node (it %s): a connection is judged by the address that it resolves to, "+
			"by every name of that address and the aliases on the way", a.question.Name, what, seen)
	}
	if rules := a.waiting(j); len(rules) > 0 {
		a.note("an address in the CIDRs of %s would be decided there", list(rules, func(s string) string { return s }))
	}
	if question.Refused {
		r := a.response
		r.Verdict, r.Policy, r.Rule = namewardv1.Verdict_DENY, r.GetQuestion().GetPolicy(), r.GetQuestion().Rule
		r.Reason = r.GetQuestion().GetReason() + ", so that it does not resolve"
		a.note("to an address of %s that is known from elsewhere: %s", a.question.Name, j.reason(a.facts.Rules))
	}
}

// waiting returns the rules that would decide otherwise for some address, by their CIDRs.
func (a *answer) waiting(j *judgement) []string {
	var waiting []string
	for _, e := range j.Evaluations {
		policy := a.facts.Rules.Policies[e.Policy]
		if e.Rule < 0 || policy.Mode != ruleset.Enforce {
			continue
		}
		rule := policy.Rules[e.Rule]
		switch {
		case e.Outcome == ruleset.Decides:
			return waiting
		case e.Outcome == ruleset.OtherDestination && len(rule.CIDRs) > 0 && rule.Action != j.Verdict &&
			rule.MatchesPort(j.connection.Protocol, j.connection.Port):
			waiting = append(waiting, fmt.Sprintf("rule %d of %s", e.Rule, policy.Name))
		}
	}
	return waiting
}
