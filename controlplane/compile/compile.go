// Package compile makes of policies, domain sets and the labels of a node the rule set that the node holds.
// It is pure: equal policies, sets and labels give equal rule sets, on every server.
package compile

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/controlplane/policy"
)

// Compile returns the rule set of a node with these labels.
func Compile(snapshot policy.Snapshot, labels map[string]string) *ruleset.RuleSet {
	selected := Select(snapshot.Policies, labels)
	return Rules(selected, snapshot.DomainSetsOf(selected))
}

// Select returns the policies that apply to a node with these labels, in the order given, without those
// that are disabled.
func Select(policies []*policy.Policy, labels map[string]string) []*policy.Policy {
	var selected []*policy.Policy
	for _, p := range policies {
		if p.Rules.Mode != ruleset.Disabled && p.Selects(labels) {
			selected = append(selected, p)
		}
	}
	return selected
}

// Rules returns the rule set of the policies and of the domain sets that they name.
func Rules(selected []*policy.Policy, domainSets []*policy.DomainSet) *ruleset.RuleSet {
	rules := make([]ruleset.Policy, 0, len(selected))
	for _, p := range selected {
		rules = append(rules, p.Rules)
	}
	sets := make([]ruleset.DomainSet, 0, len(domainSets))
	for _, set := range domainSets {
		sets = append(sets, set.DomainSet)
	}
	return ruleset.New(rules, sets...)
}

// Keys counts the policies that select by each label key. Nodes that agree in these get the same rule set.
type Keys map[string]int

// Change counts a change of the policies.
func (k Keys) Change(c Change) {
	for _, p := range c.Removed {
		for key := range p.Selector {
			if k[key]--; k[key] == 0 {
				delete(k, key)
			}
		}
	}
	for _, p := range c.Added {
		for key := range p.Selector {
			k[key]++
		}
	}
}

// Sorted returns the keys.
func (k Keys) Sorted() []string { return slices.Sorted(maps.Keys(k)) }

// Project returns what labels say of the keys, as a text that is equal for equal answers.
func Project(labels map[string]string, keys []string) string {
	var text strings.Builder
	for _, key := range keys {
		value, ok := labels[key]
		if !ok {
			continue
		}
		// Label values are free text: the quoting keeps two labels apart from one that looks like both.
		text.WriteString(strconv.Quote(key))
		text.WriteString(strconv.Quote(value))
	}
	return text.String()
}
