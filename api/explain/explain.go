// Package explain says what becomes of a connection, and why: the answer of ExplainConnection, on the
// policy server and on the agent's socket alike. Each brings what it knows of the node, and what comes of
// it is computed and said here alone, by the evaluation of api/ruleset, so that the two never disagree.
package explain

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/nameward/nameward/api/domain"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/ruleset"
)

// Facts are what is known of the node.
type Facts struct {
	// Rules are those that the node has, or should have.
	Rules *ruleset.RuleSet
	// PassedOver are policies that are no part of the rules.
	PassedOver []PassedOver
	// Mappings of the node; nil when labels stand for one.
	Mappings Mappings
	// Always is nil when it is not known.
	Always *Always
	// Notes are what else the reader has to know, a sentence each.
	Notes []string
	// Now is the time that the answer is for.
	Now time.Time
}

// PassedOver is a policy that does not apply to the node.
type PassedOver struct {
	Policy ruleset.Policy
	// Outcome is OTHER_NODE or DISABLED.
	Outcome namewardv1.RuleEvaluation_Outcome
	Reason  string
}

// Limits of lists: what is beyond them is said in a note.
const (
	maxMappings = 1000
	maxEnded    = 100
	maxNames    = 100
)

// answer is one in the making.
type answer struct {
	question Question
	facts    Facts
	response *namewardv1.ExplainConnectionResponse
	decided  decisions
}

// Answer evaluates a connection.
func Answer(q Question, facts Facts) *namewardv1.ExplainConnectionResponse {
	a := &answer{question: q, facts: facts, response: &namewardv1.ExplainConnectionResponse{}}
	switch {
	case !q.Name.IsZero():
		a.toName()
	default:
		mappings := a.mappingsOf([]netip.Addr{q.Connection.Destination})
		a.decide(a.judge(q.Connection.Destination, mappings))
	}
	if a.facts.Mappings == nil {
		a.note("labels stand for a node that has no mappings: a name is judged by its text, an address by CIDRs alone")
	}
	if a.response.GetVerdict() == namewardv1.Verdict_DENY || a.response.GetAuditVerdict() == namewardv1.Verdict_DENY {
		a.alwaysNotes()
	}
	if a.facts.Always.own(q.Connection.Source) {
		a.note("%s is an address of the node: connections of its own processes are of the workload `host`", q.Connection.Source)
	}
	if q.Connection.Port == 0 && q.Connection.Protocol.HasPorts() {
		a.note("the question names no port: rules with ports do not match")
	}
	a.unknownNote()
	a.response.Notes = append(a.response.Notes, facts.Notes...)
	return a.response
}

func (a *answer) note(format string, args ...any) {
	a.response.Notes = append(a.response.Notes, fmt.Sprintf(format, args...))
}

// mappingsOf returns what is known of addresses, and lists it in the answer.
func (a *answer) mappingsOf(addresses []netip.Addr) []Mapping {
	if a.facts.Mappings == nil {
		return nil
	}
	mappings := a.facts.Mappings.OfAddresses(addresses)
	a.list(mappings)
	return mappings
}

// list puts mappings into the answer. Those of the asked name come first where they are too many.
func (a *answer) list(mappings []Mapping) {
	live, ended := split(slices.Clone(mappings), a.facts.Now)
	if len(live) > maxMappings {
		a.note("%d more live mappings share the addresses, and are judged but not listed", len(live)-maxMappings)
		slices.SortStableFunc(live, func(x, y Mapping) int {
			return cmp.Compare(foreign(x.Domain, a.question.Name), foreign(y.Domain, a.question.Name))
		})
		live = live[:maxMappings]
		slices.SortFunc(live, inOrder)
	}
	for _, m := range live {
		a.response.Mappings = append(a.response.Mappings, m.Message())
	}
	for _, m := range ended[:min(len(ended), maxEnded)] {
		a.response.EndedMappings = append(a.response.EndedMappings, m.Message())
	}
}

func foreign(name, asked domain.Name) int {
	if name == asked {
		return 0
	}
	return 1
}

// judge evaluates the connection to one address, by the mappings that are its.
func (a *answer) judge(address netip.Addr, mappings []Mapping) *judgement {
	j := &judgement{connection: a.question.Connection, owners: ownersOf(address, mappings, a.facts.Now)}
	j.connection.Destination, j.connection.Names = address, j.owners.names()
	j.Explanation = a.decided.of(a.facts.Rules, j.connection)
	switch {
	case a.facts.Always.own(address):
		j.always = namewardv1.ExplainConnectionResponse_NODE_ADDRESS
	case j.Verdict == ruleset.Deny || j.Audited && j.AuditVerdict == ruleset.Deny:
		j.always = a.facts.Always.exempt(j.connection, a.question.SourcePort)
	}
	return j
}

// decide makes a judgement the answer.
func (a *answer) decide(j *judgement) {
	r := a.response
	v := j.message(a.facts.Rules)
	r.Verdict, r.Policy, r.Rule, r.Reason = v.GetVerdict(), v.GetPolicy(), v.Rule, v.GetReason()
	r.AuditVerdict, r.AuditPolicy, r.AuditRule = v.GetAuditVerdict(), v.GetAuditPolicy(), v.AuditRule
	r.AlwaysAllowed, r.Address, r.Enforced = v.GetAlwaysAllowed(), v.GetAddress(), j.Enforced
	if j.Audited {
		r.AuditReason = j.auditReason(a.facts.Rules)
	}
	j.Explanation = a.facts.Rules.Explain(j.connection)
	r.Evaluations = a.evaluations(j)
	a.endedNote(j)
	a.questionNote(j)
}

// endedNote says that a name which no longer counts decided until its mapping ended.
func (a *answer) endedNote(j *judgement) {
	if len(j.owners.ended) == 0 || j.always != namewardv1.ExplainConnectionResponse_ALWAYS_ALLOWED_UNSPECIFIED {
		return
	}
	before := j.connection
	for _, o := range j.owners.ended {
		before.Names = append(before.Names[:len(before.Names):len(before.Names)], o.name)
	}
	e := a.facts.Rules.Decide(before)
	if e.Policy == "" || e.Policy == j.Policy && e.Rule == j.Rule {
		return
	}
	then := &judgement{Explanation: e, connection: before}
	match := then.deciding(a.facts.Rules, ruleset.Enforce).Match
	for _, o := range j.owners.ended {
		if o.name == match.Name {
			a.note("until %s, when the mapping of %s to it ended, rule %d of %s decided: %s", timeText(o.expiresAt), o.text(), e.Rule, e.Policy, toVerdict(e.Verdict))
		}
	}
}
