package ruleset

import (
	"fmt"
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
	// Audited: at least one policy in mode Audit selects it; AuditVerdict is what those would have said.
	Audited      bool
	AuditVerdict Action
	// Policy and Rule decided; Policy is empty when none matched.
	Policy string
	Rule   int
	// Reason says in a sentence why the verdict is what it is.
	Reason string
	// Evaluations lists what was considered, in order.
	Evaluations []Evaluation
}

// Evaluation says what became of one rule, or with Rule -1 of a whole policy.
type Evaluation struct {
	Policy  string
	Rule    int
	Mode    Mode
	Action  Action
	Matched bool
	Reason  string
}

// Explain evaluates a connection: the first rule that matches decides, by position among all policies
// that select the workload; those in mode Audit are evaluated beside the others. What is allowed
// whatever the policies say (replies, DHCP, trusted resolvers, …) is not considered here.
func (rs *RuleSet) Explain(c Connection) Explanation {
	e := Explanation{Rule: -1}
	audit := Explanation{Rule: -1}
	for _, policy := range rs.Policies {
		if !slices.ContainsFunc(policy.Workloads, func(w Workload) bool { return w.selects(c) }) {
			e.Evaluations = append(e.Evaluations, Evaluation{policy.Name, -1, policy.Mode, Allow, false, "does not select the workload"})
			continue
		}
		side := &e
		if policy.Mode == Audit {
			side = &audit
		}
		side.Enforced = true
		for i, rule := range policy.Rules {
			matched, reason := rs.match(rule, c)
			if matched && side.Policy == "" {
				side.Policy, side.Rule, side.Verdict = policy.Name, i, rule.Action
			} else if matched {
				reason += fmt.Sprintf("; rule %d of %s decided before", side.Rule, side.Policy)
			}
			e.Evaluations = append(e.Evaluations, Evaluation{policy.Name, i, policy.Mode, rule.Action, matched, reason})
		}
	}
	audit.conclude()
	e.conclude()
	e.Audited, e.AuditVerdict = audit.Enforced, audit.Verdict
	return e
}

// conclude gives a verdict where no rule did, and the reason of either.
func (e *Explanation) conclude() {
	switch {
	case e.Policy != "" && e.Verdict == Allow:
		e.Reason = fmt.Sprintf("rule %d of %s allows it", e.Rule, e.Policy)
	case e.Policy != "":
		e.Reason = fmt.Sprintf("rule %d of %s denies it", e.Rule, e.Policy)
	case e.Enforced:
		e.Verdict = Deny
		e.Reason = "a policy in mode ENFORCE selects the workload, and no rule matches"
	default:
		e.Reason = "no policy in mode ENFORCE selects the workload"
	}
}

func (w Workload) selects(c Connection) bool {
	if w.SelectsProcesses() || c.Local {
		return w.SelectsProcesses() && c.Local && w.selectsProcess(c)
	}
	return w.SelectsInterface(c.Interface) && (len(w.CIDRs) == 0 || contains(w.CIDRs, c.Source))
}

func (rs *RuleSet) match(r Rule, c Connection) (bool, string) {
	where, ok := rs.matchDestination(r, c)
	if !ok {
		return false, where
	}
	if len(r.Ports) == 0 {
		return true, where
	}
	for _, p := range r.Ports {
		if p.Protocol == c.Protocol && (!p.Protocol.HasPorts() || p.First <= c.Port && c.Port <= p.Last) {
			return true, where
		}
	}
	return false, where + ", but protocol and port are not among its ports"
}

func (rs *RuleSet) matchDestination(r Rule, c Connection) (string, bool) {
	if r.AnyDestination() {
		return "matches every destination", true
	}
	for _, name := range c.Names {
		if what, ok := rs.matchName(r, name); ok {
			return fmt.Sprintf("%s matches %s", what, name), true
		}
	}
	for _, prefix := range r.CIDRs {
		if c.Destination.IsValid() && prefix.Contains(c.Destination.Unmap()) {
			return fmt.Sprintf("%s contains %s", prefix, c.Destination), true
		}
	}
	switch {
	case r.ByName() && len(c.Names) == 0:
		return "the destination is no live mapping of any name", false
	case r.ByName():
		return "no domain pattern matches the names of the destination", false
	default:
		return "no CIDR contains the destination", false
	}
}

// matchName returns what of the rule matches a name: a pattern, or a pattern and its domain set.
func (rs *RuleSet) matchName(r Rule, name domain.Name) (string, bool) {
	for _, pattern := range r.Domains {
		if pattern.Match(name) {
			return pattern.String(), true
		}
	}
	for _, set := range r.DomainSets {
		s, _ := rs.DomainSet(set)
		if pattern, ok := s.Match(name); ok {
			return fmt.Sprintf("%s of %s", pattern, set), true
		}
	}
	return "", false
}

func contains(prefixes []netip.Prefix, address netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(address.Unmap()) })
}
