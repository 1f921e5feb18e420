package ruleset

import (
	"net/netip"
	"reflect"
	"slices"

	"github.com/nameward/nameward/api/domain"
)

// Narrows reports whether some connection may be allowed by rs and denied by next. A false is certain; a
// true is not: it comes for every change that is more than another domain, destination, port or rule that
// allows.
func (rs *RuleSet) Narrows(next *RuleSet) bool {
	before, after := rs.enforced(), next.enforced()
	if len(after) == 0 {
		return false
	}
	if len(before) != len(after) {
		return true // who selects a workload decides what is denied where no rule matches
	}
	return slices.ContainsFunc(before, func(p *Policy) bool {
		i := slices.IndexFunc(after, func(q *Policy) bool { return q.Name == p.Name })
		return i < 0 || p.Priority != after[i].Priority || rs.narrows(p, next, after[i])
	})
}

func (rs *RuleSet) enforced() []*Policy {
	var enforced []*Policy
	for i := range rs.Policies {
		if rs.Policies[i].Mode == Enforce {
			enforced = append(enforced, &rs.Policies[i])
		}
	}
	return enforced
}

// narrows goes by the order of the rules: each of p is there still, and what came between them allows.
func (rs *RuleSet) narrows(p *Policy, next *RuleSet, q *Policy) bool {
	if !reflect.DeepEqual(p.Workloads, q.Workloads) {
		return true
	}
	left := p.Rules
	for _, rule := range q.Rules {
		switch {
		case len(left) > 0 && rs.replaces(left[0], next, rule):
			left = left[1:]
		case rule.Action != Allow:
			return true
		}
	}
	return len(left) > 0
}

// replaces reports whether a rule of next allows at least what one of rs does, or denies the same.
func (rs *RuleSet) replaces(old Rule, next *RuleSet, now Rule) bool {
	if old.Action != now.Action || rs.setsNarrow(old, next) {
		return false
	}
	if old.Action == Deny || old.AnyDestination() || now.AnyDestination() {
		return slices.Equal(old.Domains, now.Domains) && slices.Equal(old.DomainSets, now.DomainSets) &&
			slices.Equal(old.CIDRs, now.CIDRs) && slices.Equal(old.Ports, now.Ports)
	}
	return !lost(old.Domains, now.Domains, comparePatterns) && !lostAny(old.DomainSets, now.DomainSets) &&
		!lost(old.CIDRs, now.CIDRs, netip.Prefix.Compare) &&
		(len(now.Ports) == 0 || len(old.Ports) > 0 && !lostAny(old.Ports, now.Ports))
}

// setsNarrow reports whether a domain set of a rule has changed to more than others in addition, or at all
// if the rule denies.
func (rs *RuleSet) setsNarrow(r Rule, next *RuleSet) bool {
	return slices.ContainsFunc(r.DomainSets, func(name string) bool {
		before, _ := rs.DomainSet(name)
		after, _ := next.DomainSet(name)
		return !before.Same(after) && (r.Action == Deny || lost(before.Domains, after.Domains, comparePatterns))
	})
}

// lost reports whether a sorted list has something that another lacks.
func lost[E domain.Pattern | netip.Prefix](old, now []E, compare func(a, b E) int) bool {
	for len(old) > 0 {
		for len(now) > 0 && compare(now[0], old[0]) < 0 {
			now = now[1:]
		}
		if len(now) == 0 || now[0] != old[0] {
			return true
		}
		old, now = old[1:], now[1:]
	}
	return false
}

func lostAny[E comparable](old, now []E) bool {
	return slices.ContainsFunc(old, func(e E) bool { return !slices.Contains(now, e) })
}

// SameRules reports whether a policy of rs and one of other say the same of every connection, what their
// domain sets hold included.
func (rs *RuleSet) SameRules(p *Policy, other *RuleSet, q *Policy) bool {
	if !p.Equal(*q) {
		return false
	}
	for _, rule := range p.Rules {
		for _, name := range rule.DomainSets {
			before, _ := rs.DomainSet(name)
			after, _ := other.DomainSet(name)
			if !before.Same(after) {
				return false
			}
		}
	}
	return true
}
