package compile

import (
	"fmt"
	"maps"

	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/controlplane/policy"
)

// What a node's datapath holds by default, per rule set.
const (
	// MaxPatterns bounds the distinct domain patterns.
	MaxPatterns = 131072
	// MaxCIDRs bounds the distinct destination CIDRs, and the distinct source CIDRs of workloads.
	MaxCIDRs = 32768
)

// CapacityError says that a rule set is more than a node can hold.
type CapacityError struct {
	// What is too many, as in `domain patterns`.
	What         string
	Count, Limit int
}

// Error returns count and limit.
func (e *CapacityError) Error() string {
	return fmt.Sprintf("a node would hold %d %s, more than %d", e.Count, e.What, e.Limit)
}

// Check returns a *CapacityError when the policies are together more than a node can hold.
func Check(selected []*policy.Policy) error {
	if fits(selected) {
		return nil
	}
	patterns, destinations, sources := set{}, set{}, set{}
	general := newGeneralPatterns()
	for _, p := range selected {
		for _, rule := range p.Rules.Rules {
			addAll(patterns, rule.Domains)
			general.add(rule.Domains)
			addAll(destinations, rule.CIDRs)
		}
		for _, workload := range p.Rules.Workloads {
			addAll(sources, workload.CIDRs)
		}
	}
	for _, part := range []CapacityError{
		{"domain patterns", len(patterns), MaxPatterns},
		{"destination CIDRs", len(destinations), MaxCIDRs},
		{"source CIDRs", len(sources), MaxCIDRs},
	} {
		if part.Count > part.Limit {
			return &part
		}
	}
	return general.check()
}

// size counts what a policy names, duplicates included.
type size struct {
	patterns, general, destinations, sources int
}

func sizeOf(p *policy.Policy) size {
	var size size
	for _, rule := range p.Rules.Rules {
		size.patterns += len(rule.Domains)
		size.general += countGeneral(rule.Domains)
		size.destinations += len(rule.CIDRs)
	}
	for _, workload := range p.Rules.Workloads {
		size.sources += len(workload.CIDRs)
	}
	return size
}

// fits counts duplicates too, which is quick and nearly always enough.
func fits(selected []*policy.Policy) bool {
	var sum size
	for _, p := range selected {
		size := sizeOf(p)
		sum.patterns += size.patterns
		sum.general += size.general
		sum.destinations += size.destinations
		sum.sources += size.sources
	}
	return sum.patterns <= MaxPatterns && sum.general <= ruleset.MaxGeneralPatternsOfName && sum.destinations <= MaxCIDRs && sum.sources <= MaxCIDRs
}

// Admit returns a *CapacityError when putting a policy, in place of one of the same name, would make the
// rule set of a node with any of these labels more than it can hold.
func Admit(policies []*policy.Policy, added *policy.Policy, nodes []map[string]string) error {
	next := make([]*policy.Policy, 0, len(policies)+1)
	for _, p := range policies {
		switch {
		case p.Name != added.Name:
			next = append(next, p)
		case !AsksForMore(p, added):
			return nil
		}
	}
	next = append(next, added)
	if added.Rules.Mode == ruleset.Disabled || fits(next) {
		return nil
	}
	if err := Check([]*policy.Policy{added}); err != nil {
		return err
	}
	// No node holds more than all policies together, which nearly always fit.
	if fits(next) {
		return nil
	}
	keys, checked := Keys(next), map[string]bool{}
	for _, labels := range nodes {
		if !added.Selects(labels) || checked[Project(labels, keys)] {
			continue
		}
		checked[Project(labels, keys)] = true
		if err := Check(Select(next, labels)); err != nil {
			return err
		}
	}
	return nil
}

// AsksForMore reports whether any node could get more by a policy than by the one that it replaces.
func AsksForMore(before, added *policy.Policy) bool {
	was, is := sizeOf(before), sizeOf(added)
	return before.Rules.Mode == ruleset.Disabled || !maps.Equal(before.Selector, added.Selector) ||
		is.general > 0 && !generalOf(before).contain(generalOf(added)) ||
		is.patterns > was.patterns || is.destinations > was.destinations || is.sources > was.sources
}

// set holds what was seen of patterns or prefixes.
type set map[any]struct{}

func addAll[E comparable](s set, list []E) {
	for _, e := range list {
		s[e] = struct{}{}
	}
}
