package main

import (
	"fmt"
	"strconv"
	"strings"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

func (p *program) printExplanation(request *namewardv1.ExplainConnectionRequest, answer *namewardv1.ExplainConnectionResponse) error {
	if p.options.output.structured() {
		return printMessages(p, []*namewardv1.ExplainConnectionResponse{answer})
	}
	tables := []*table{summaryTable(request, answer)}
	if len(answer.GetAddresses()) > 1 {
		tables = append(tables, addressesTable(answer.GetAddresses()))
	}
	tables = append(tables, evaluationsTable(answer.GetEvaluations()),
		p.chainsTable(answer.GetMappings(), "EXPIRES"), p.chainsTable(answer.GetEndedMappings(), "ENDED"))
	var texts []string
	for _, t := range tables {
		if len(t.rows) > 0 {
			texts = append(texts, t.render(p.painter()))
		}
	}
	return p.print(strings.Join(texts, "\n"))
}

func summaryTable(request *namewardv1.ExplainConnectionRequest, answer *namewardv1.ExplainConnectionResponse) *table {
	t := &table{}
	t.add(plain("Verdict"), verdictCell(answer.GetVerdict()))
	t.addPlain("Connection", connectionText(request))
	t.addPlain("Decided by", decider(answer))
	t.addPlain("Reason", orNone(answer.GetReason()))
	if answer.GetAuditVerdict() != namewardv1.Verdict_VERDICT_UNSPECIFIED {
		t.add(plain("Audit"), verdictCell(answer.GetAuditVerdict()))
		t.addPlain("", answer.GetAuditReason())
	}
	if question := answer.GetQuestion(); question != nil {
		verdict := cell{"asked", styleGood}
		if question.GetRefused() {
			verdict = cell{"refused", styleBad}
		}
		t.add(plain("Question"), verdict)
		t.addPlain("", question.GetReason())
		if question.GetAuditRefused() {
			t.addPlain("", fmt.Sprintf("AUDIT would refuse it, by %s rule %d", question.GetAuditPolicy(), question.GetAuditRule()))
		}
	}
	for _, note := range answer.GetNotes() {
		t.addPlain("Note", note)
	}
	return t
}

// connectionText repeats the question, so that an answer can be read on its own.
func connectionText(request *namewardv1.ExplainConnectionRequest) string {
	text := request.GetWorkload()
	if request.GetInterface() != "" {
		text += " by " + request.GetInterface()
	}
	text += " to " + request.GetDestination() + " " + request.GetProtocol().String()
	if request.GetPort() != 0 {
		text += "/" + strconv.FormatUint(uint64(request.GetPort()), 10)
	}
	if request.GetSourcePort() != 0 {
		text += " from port " + strconv.FormatUint(uint64(request.GetSourcePort()), 10)
	}
	switch {
	case request.GetNode() != "":
		text += " on " + request.GetNode()
	case len(request.GetLabels()) > 0:
		text += " on a node with " + labelsText(request.GetLabels(), none)
	}
	return text
}

func decider(answer *namewardv1.ExplainConnectionResponse) string {
	switch {
	case answer.GetAlwaysAllowed() != namewardv1.ExplainConnectionResponse_ALWAYS_ALLOWED_UNSPECIFIED:
		return "no policy: it is always allowed"
	case answer.GetPolicy() != "":
		return fmt.Sprintf("%s rule %d", answer.GetPolicy(), answer.GetRule())
	case answer.GetEnforced():
		return "no rule matches"
	}
	return "no policy enforces anything for this workload"
}

func addressesTable(addresses []*namewardv1.AddressVerdict) *table {
	t := &table{header: []string{"ADDRESS", "VERDICT", "AUDIT", "DECIDED BY", "DOMAINS"}}
	for _, a := range addresses {
		by := decider(&namewardv1.ExplainConnectionResponse{
			AlwaysAllowed: a.GetAlwaysAllowed(), Policy: a.GetPolicy(), Rule: a.Rule, Enforced: a.GetVerdict() == namewardv1.Verdict_DENY,
		})
		t.add(plain(a.GetAddress()), verdictCell(a.GetVerdict()), verdictCell(a.GetAuditVerdict()), plain(by), plain(strings.Join(a.GetDomains(), " ")))
	}
	return t
}

func evaluationsTable(evaluations []*namewardv1.RuleEvaluation) *table {
	t := &table{header: []string{"POLICY", "PRIORITY", "RULE", "ACTION", "MODE", "MATCHES", "WHY"}}
	for _, evaluation := range evaluations {
		rule := "all"
		if evaluation.GetRule() >= 0 {
			rule = strconv.Itoa(int(evaluation.GetRule()))
		}
		t.add(plain(evaluation.GetPolicy()), plain(strconv.Itoa(int(evaluation.GetPriority()))), plain(rule), actionCell(evaluation.GetAction()),
			modeCell(evaluation.GetMode()), matchCell(evaluation), plain(evaluation.GetReason()))
	}
	return t
}

func matchCell(evaluation *namewardv1.RuleEvaluation) cell {
	switch evaluation.GetOutcome() {
	case namewardv1.RuleEvaluation_DECIDES:
		return cell{"decides", styleGood}
	case namewardv1.RuleEvaluation_SELECTS:
		return plain("selects")
	default:
		if evaluation.GetMatched() {
			return plain("yes")
		}
		return cell{"no", styleFaint}
	}
}

// chainsTable lists mappings with the aliases that lead from the name to the address.
func (p *program) chainsTable(mappings []*namewardv1.Mapping, end string) *table {
	t := &table{header: []string{"DOMAIN", "ALIASES", "ADDRESS", "CLIENT", end}}
	for _, mapping := range mappings {
		when := p.until(mapping.GetExpireTime())
		if end == "ENDED" {
			when = p.ago(mapping.GetExpireTime()) + " ago"
		}
		aliases := mapping.GetChain()
		for _, former := range mapping.GetFormerAliases() {
			aliases = append(aliases[:len(aliases):len(aliases)], fmt.Sprintf("(%s)", former.GetDomain()))
		}
		t.addPlain(mapping.GetDomain(), orNone(strings.Join(aliases, " ")), mapping.GetAddress(), orNone(mapping.GetClient()), when)
	}
	return t
}

func verdictCell(verdict namewardv1.Verdict) cell {
	switch verdict {
	case namewardv1.Verdict_ALLOW:
		return cell{"ALLOW", styleGood}
	case namewardv1.Verdict_DENY:
		return cell{"DENY", styleBad}
	case namewardv1.Verdict_VERDICT_UNSPECIFIED:
	}
	return plain(none)
}
