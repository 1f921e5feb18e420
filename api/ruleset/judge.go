package ruleset

import (
	"net/netip"
	"slices"

	"github.com/nameward/nameward/api/domain"
)

// Judge gives the verdicts of a rule set on many connections: those of Explain, without its reasons and
// at a cost that does not grow with the lists of domains. It remembers what it found out, and so is not
// safe for concurrent use.
type Judge struct {
	rules      *RuleSet
	selections map[workloadKey]*Selection
	inline     map[*Rule]DomainSet // the domains of a rule, as a set that can be searched
}

// Selection is the policies in mode Enforce that select a workload, in order of evaluation.
type Selection struct {
	Policies []*Policy
}

// workloadKey is what of a connection says which workload it is of.
type workloadKey struct {
	local        bool
	source       netip.Addr
	iface        string
	hasUID       bool
	uid          uint32
	cgroup, unit string
}

// NewJudge returns the judge of a rule set.
func NewJudge(rules *RuleSet) *Judge {
	return &Judge{rules: rules, selections: map[workloadKey]*Selection{}, inline: map[*Rule]DomainSet{}}
}

// Rules returns the rule set that it judges by.
func (j *Judge) Rules() *RuleSet { return j.rules }

// Select returns the policies in mode Enforce that select a connection's workload; the same for equal
// workloads.
func (j *Judge) Select(c Connection) *Selection {
	key := workloadKey{local: c.Local, source: c.Source, iface: c.Interface, cgroup: c.Cgroup, unit: c.Unit}
	if c.UID != nil {
		key.hasUID, key.uid = true, *c.UID
	}
	if found := j.selections[key]; found != nil {
		return found
	}
	s := &Selection{}
	for i := range j.rules.Policies {
		p := &j.rules.Policies[i]
		if p.Mode == Enforce && slices.ContainsFunc(p.Workloads, func(w Workload) bool { return w.Selects(c) }) {
			s.Policies = append(s.Policies, p)
		}
	}
	j.selections[key] = s
	return s
}

// Verdict returns the verdict on a connection that the selection is of, and the policy whose rule
// decided: nil when none did.
func (j *Judge) Verdict(s *Selection, c Connection) (Action, *Policy) {
	for _, p := range s.Policies {
		for i := range p.Rules {
			if r := &p.Rules[i]; r.fits(c) && j.reaches(r, c) {
				return r.Action, p
			}
		}
	}
	if len(s.Policies) > 0 {
		return Deny, nil
	}
	return Allow, nil
}

// MayAllow returns the policies with a rule that would allow the connection if its destination had one
// more name.
func (j *Judge) MayAllow(s *Selection, c Connection) []*Policy {
	var found []*Policy
	for _, p := range s.Policies {
		if slices.ContainsFunc(p.Rules, func(r Rule) bool { return r.Action == Allow && r.ByName() && r.fits(c) }) {
			found = append(found, p)
		}
	}
	return found
}

// fits reports whether the rule is for the protocol and port.
func (r *Rule) fits(c Connection) bool {
	return len(r.Ports) == 0 || slices.ContainsFunc(r.Ports, func(p Ports) bool {
		return p.Protocol == c.Protocol && (!p.Protocol.HasPorts() || p.First <= c.Port && c.Port <= p.Last)
	})
}

// reaches reports whether the rule is for the destination.
func (j *Judge) reaches(r *Rule, c Connection) bool {
	return r.AnyDestination() || c.Destination.IsValid() && contains(r.CIDRs, c.Destination) ||
		r.ByName() && slices.ContainsFunc(c.Names, func(name domain.Name) bool { return j.names(r, name) })
}

func (j *Judge) names(r *Rule, name domain.Name) bool {
	if len(r.Domains) > 0 {
		list, indexed := j.inline[r]
		if !indexed {
			list = withContents("", r.Domains, setDigest{}) // nobody asks for the digest
			j.inline[r] = list
		}
		if _, matches := list.Match(name); matches {
			return true
		}
	}
	return slices.ContainsFunc(r.DomainSets, func(set string) bool {
		s, _ := j.rules.DomainSet(set)
		_, matches := s.Match(name)
		return matches
	})
}
