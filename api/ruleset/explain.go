package ruleset

import (
	"net/netip"
	"slices"

	"github.com/nameward/nameward/api/domain"
)

// Connection is a new connection, as the evaluation sees it.
type Connection struct {
	// Local: opened by a process of the node, rather than forwarded.
	Local bool
	// Source and Interface say where a forwarded connection comes from.
	Source    netip.Addr
	Interface string
	// UID and Cgroup, a path from the root, say which process opened a local connection: nil and empty of
	// one that no process did.
	UID    *uint32
	Cgroup string
	// Unit says that the process is of a systemd unit, where the control group is not known.
	Unit string
	// Destination is the address asked for; the zero Addr when only a name is judged.
	Destination netip.Addr
	// Names are those of which the destination is a live mapping, or the name that is judged.
	Names    []domain.Name
	Protocol Protocol
	Port     uint16
}

// Explanation is a verdict and how it came about.
type Explanation struct {
	// Verdict is Allow when no enforcing policy selects the connection.
	Verdict Action
	// Enforced: at least one enforcing policy selects the connection.
	Enforced bool
	// Policy and Rule decided; Policy is empty when none matched.
	Policy string
	Rule   int
	// Audited: at least one policy in mode Audit selects the connection. The rest is what those would have
	// said.
	Audited      bool
	AuditVerdict Action
	AuditPolicy  string
	AuditRule    int
	// Evaluations lists each policy, and behind one that selects the connection each of its rules, in
	// order of evaluation.
	Evaluations []Evaluation
}

// Evaluation says what became of a policy, or of one of its rules.
type Evaluation struct {
	// Policy is the position of the policy in the rule set.
	Policy int
	// Rule is its position in the policy; -1 for the policy as a whole.
	Rule    int
	Outcome Outcome
	// Match is what of the rule's destinations the connection's is, also when the ports are others.
	Match Match
}

// Outcome is what became of a policy or a rule in an evaluation.
type Outcome uint8

// The outcomes: the first two of policies, the others of rules.
const (
	// Selects: the policy selects the connection, so its rules count.
	Selects Outcome = iota
	// OtherWorkload: the policy does not select the connection.
	OtherWorkload
	// Decides: the first rule that matches, of those in policies of its mode.
	Decides
	// DecidedBefore: the rule matches, but so does one before it.
	DecidedBefore
	// OtherDestination: the destination is none of the rule's.
	OtherDestination
	// OtherPorts: the destination is the rule's, protocol and port are not.
	OtherPorts
)

// Matched reports whether the rule matches.
func (o Outcome) Matched() bool { return o == Decides || o == DecidedBefore }

// Match is what of a rule's destinations the one of a connection is. The zero Match is none.
type Match struct {
	// Every: the rule names no destination.
	Every bool
	// Pattern matches Name. DomainSet is the set that it is of; empty for one of the rule's own.
	Pattern   domain.Pattern
	DomainSet string
	Name      domain.Name
	// CIDR contains the address.
	CIDR netip.Prefix
}

// Explain evaluates a connection: the first rule that matches decides, by position among all policies
// that select the workload; those in mode Audit are evaluated beside the others. What is allowed
// whatever the policies say (replies, DHCP, trusted resolvers, …) is not considered here.
func (rs *RuleSet) Explain(c Connection) Explanation {
	return rs.evaluate(c, func(Outcome) bool { return true })
}

// Decide does the same, but lists in Evaluations only which policies select the connection and which rules
// decide.
func (rs *RuleSet) Decide(c Connection) Explanation {
	return rs.evaluate(c, func(o Outcome) bool { return o == Selects || o == Decides })
}

// evaluate lists the evaluations whose outcome keep wants.
func (rs *RuleSet) evaluate(c Connection, keep func(Outcome) bool) Explanation {
	e := Explanation{Rule: -1, AuditRule: -1}
	add := func(evaluation Evaluation) {
		if keep(evaluation.Outcome) {
			e.Evaluations = append(e.Evaluations, evaluation)
		}
	}
	var decided [Disabled]bool // by mode
	behind := keep(DecidedBefore)
	for i, policy := range rs.Policies {
		if !policy.Selects(c) {
			add(Evaluation{Policy: i, Rule: -1, Outcome: OtherWorkload})
			continue
		}
		add(Evaluation{Policy: i, Rule: -1, Outcome: Selects})
		e.selectedBy(policy.Mode)
		for j, rule := range policy.Rules {
			if decided[policy.Mode] && !behind {
				break
			}
			outcome, match := rs.match(rule, c)
			switch {
			case outcome != Decides:
			case decided[policy.Mode]:
				outcome = DecidedBefore
			default:
				decided[policy.Mode] = true
				e.decide(policy, j)
			}
			add(Evaluation{i, j, outcome, match})
		}
	}
	return e
}

// selectedBy notes that a policy of that mode selects the connection: without a rule that matches, it
// is denied.
func (e *Explanation) selectedBy(mode Mode) {
	if mode == Audit && !e.Audited {
		e.Audited, e.AuditVerdict = true, Deny
	}
	if mode == Enforce && !e.Enforced {
		e.Enforced, e.Verdict = true, Deny
	}
}

func (e *Explanation) decide(policy Policy, rule int) {
	action := policy.Rules[rule].Action
	if policy.Mode == Audit {
		e.AuditVerdict, e.AuditPolicy, e.AuditRule = action, policy.Name, rule
		return
	}
	e.Verdict, e.Policy, e.Rule = action, policy.Name, rule
}

// Selects reports whether one of the policy's workloads selects the connection.
func (p Policy) Selects(c Connection) bool {
	return slices.ContainsFunc(p.Workloads, func(w Workload) bool { return w.Selects(c) })
}

// Selects reports whether the workload selects the connection.
func (w Workload) Selects(c Connection) bool {
	if w.SelectsProcesses() || c.Local {
		return w.SelectsProcesses() && c.Local && w.selectsProcess(c)
	}
	return w.SelectsInterface(c.Interface) && (len(w.CIDRs) == 0 || contains(w.CIDRs, c.Source))
}

// match returns Decides for a rule that matches: whether it does decide is the caller's to say.
func (rs *RuleSet) match(r Rule, c Connection) (Outcome, Match) {
	match, ok := rs.MatchDestination(r, c)
	switch {
	case !ok:
		return OtherDestination, Match{}
	case !r.MatchesPort(c.Protocol, c.Port):
		return OtherPorts, match
	default:
		return Decides, match
	}
}

// MatchesPort reports whether the rule's ports match.
func (r Rule) MatchesPort(protocol Protocol, port uint16) bool {
	return len(r.Ports) == 0 || slices.ContainsFunc(r.Ports, func(p Ports) bool {
		return p.Protocol == protocol && (!p.Protocol.HasPorts() || p.First <= port && port <= p.Last)
	})
}

// MatchDestination returns what of the rule's destinations matches that of a connection.
func (rs *RuleSet) MatchDestination(r Rule, c Connection) (Match, bool) {
	if r.AnyDestination() {
		return Match{Every: true}, true
	}
	for _, name := range c.Names {
		if match, ok := rs.MatchName(r, name); ok {
			return match, true
		}
	}
	for _, prefix := range r.CIDRs {
		if c.Destination.IsValid() && prefix.Contains(c.Destination.Unmap()) {
			return Match{CIDR: prefix}, true
		}
	}
	return Match{}, false
}

// MatchName returns what of the rule matches a name: a pattern, of the rule's own or of a domain set.
func (rs *RuleSet) MatchName(r Rule, name domain.Name) (Match, bool) {
	for _, pattern := range r.Domains {
		if pattern.Match(name) {
			return Match{Pattern: pattern, Name: name}, true
		}
	}
	for _, set := range r.DomainSets {
		s, _ := rs.DomainSet(set)
		if pattern, ok := s.Match(name); ok {
			return Match{Pattern: pattern, DomainSet: set, Name: name}, true
		}
	}
	return Match{}, false
}

func contains(prefixes []netip.Prefix, address netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(address.Unmap()) })
}
