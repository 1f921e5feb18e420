package policy

import (
	"maps"
	"slices"

	"github.com/nameward/nameward/api/ruleset"
)

// Snapshot is all that rule sets are made of, as it is at one revision of the store. It is immutable.
type Snapshot struct {
	// Policies are in order of evaluation: by priority, then by name.
	Policies []*Policy
	// DomainSets are by name. Each that a policy names is there.
	DomainSets map[string]*DomainSet
}

// WithPolicy returns what there is once a policy is put.
func (s Snapshot) WithPolicy(p *Policy) Snapshot {
	policies := slices.DeleteFunc(slices.Clone(s.Policies), func(other *Policy) bool { return other.Name == p.Name })
	at, _ := slices.BinarySearchFunc(policies, p, func(a, b *Policy) int { return a.Rules.Compare(b.Rules) })
	return Snapshot{slices.Insert(policies, at, p), s.DomainSets}
}

// WithDomainSet returns what there is once a domain set is put.
func (s Snapshot) WithDomainSet(set *DomainSet) Snapshot {
	next := Snapshot{s.Policies, maps.Clone(s.DomainSets)}
	next.DomainSets[set.Name] = set
	return next
}

// Renewed returns domain sets as they are now: those that policies name, as DomainSetsOf returns them, while the policies
// stay.
func (s Snapshot) Renewed(sets []*DomainSet) []*DomainSet {
	var renewed []*DomainSet
	for _, set := range sets {
		if now := s.DomainSets[set.Name]; now != nil {
			renewed = append(renewed, now)
		}
	}
	return renewed
}

// DomainSetsOf returns the sets that the rules of policies name, each once, in the order in which they are
// met.
func (s Snapshot) DomainSetsOf(policies []*Policy) []*DomainSet {
	var sets []*DomainSet
	if len(s.DomainSets) == 0 {
		return sets
	}
	met := map[string]bool{}
	for _, p := range policies {
		for _, rule := range p.Rules.Rules {
			for _, name := range rule.DomainSets {
				if set := s.DomainSets[name]; set != nil && !met[name] {
					met[name] = true
					sets = append(sets, set)
				}
			}
		}
	}
	return sets
}

// Names reports whether a rule of the policy names the domain set.
func (p *Policy) Names(domainSet string) bool {
	return slices.ContainsFunc(p.Rules.Rules, func(r ruleset.Rule) bool { return slices.Contains(r.DomainSets, domainSet) })
}
