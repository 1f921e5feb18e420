package compile

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/controlplane/policy"
)

// What a node's datapath holds by default, per rule set.
const (
	// MaxPatterns bounds the room (ruleset.Room) of the distinct domain patterns, those of domain sets among
	// them.
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
	return fmt.Sprintf("a node would hold %d %s: more than %d", e.Count, e.What, e.Limit)
}

// Check returns a *CapacityError when the policies, and the domain sets that they name, are together more
// than a node can hold.
func Check(selected []*policy.Policy, snapshot policy.Snapshot) error {
	sets := snapshot.DomainSetsOf(selected)
	if Fits(sizeOf(selected, sets)) {
		return nil
	}
	all := demandOf(selected...)
	for _, set := range sets {
		all.patterns.add(set.Domains)
	}
	room, what := 0, "domain patterns"
	for pattern := range all.patterns {
		room += ruleset.Room(pattern)
	}
	if room > len(all.patterns) {
		what += ", long ones counted as two or more"
	}
	for _, part := range []CapacityError{
		{what, room, MaxPatterns},
		{"destination CIDRs", len(all.destinations), MaxCIDRs},
		{"source CIDRs", len(all.sources), MaxCIDRs},
	} {
		if part.Count > part.Limit {
			return &part
		}
	}
	return generalOf(all.patterns).check()
}

func sizeOf(policies []*policy.Policy, sets []*policy.DomainSet) (sum policy.Size) {
	for _, p := range policies {
		sum = sum.Plus(p.Size)
	}
	for _, set := range sets {
		sum = sum.Plus(set.Size())
	}
	return sum
}

// Fits reports whether any node can hold what is of this size. It is quick, and nearly always enough.
func Fits(s policy.Size) bool {
	return s.Patterns <= MaxPatterns && s.General <= ruleset.MaxGeneralPatternsOfName && s.Destinations <= MaxCIDRs && s.Sources <= MaxCIDRs
}

// Admit returns a *CapacityError when the rule set of a node with any of these labels, made of the snapshot,
// would be more than it can hold. Only what the concerned policies are part of is judged: those that were
// put, or that name a domain set which was.
func Admit(next policy.Snapshot, concerned []*policy.Policy, nodes []map[string]string) error {
	concerned = slices.DeleteFunc(slices.Clone(concerned), isDisabled)
	if len(concerned) == 0 {
		return nil
	}
	// No node holds more than all policies together, which nearly always fit.
	enabled := slices.DeleteFunc(slices.Clone(next.Policies), isDisabled)
	if Fits(sizeOf(enabled, next.DomainSetsOf(enabled))) {
		return nil
	}
	for _, p := range concerned {
		if err := Check([]*policy.Policy{p}, next); err != nil {
			return err
		}
	}
	counted, checked := Keys{}, map[string]bool{}
	counted.Change(Change{Added: enabled})
	keys := counted.Sorted()
	for _, labels := range nodes {
		projection := Project(labels, keys)
		if checked[projection] || !slices.ContainsFunc(concerned, func(p *policy.Policy) bool { return p.Selects(labels) }) {
			continue
		}
		checked[projection] = true
		if err := Check(Select(enabled, labels), next); err != nil {
			return err
		}
	}
	return nil
}

func isDisabled(p *policy.Policy) bool { return p.Rules.Mode == ruleset.Disabled }

// AsksForMore reports whether any node could get more by a policy than by the one that it replaces.
func AsksForMore(before, added *policy.Policy) bool {
	return isDisabled(before) || !maps.Equal(before.Selector, added.Selector) ||
		!asksForSame(before, added) && !demandOf(before).contains(demandOf(added))
}

// asksForSame is quicker than to gather what both hold, and true of most writes.
func asksForSame(before, added *policy.Policy) bool {
	return slices.EqualFunc(before.Rules.Rules, added.Rules.Rules, func(a, b ruleset.Rule) bool {
		return slices.Equal(a.Domains, b.Domains) && slices.Equal(a.DomainSets, b.DomainSets) && slices.Equal(a.CIDRs, b.CIDRs)
	}) && slices.EqualFunc(before.Rules.Workloads, added.Rules.Workloads, func(a, b ruleset.Workload) bool {
		return slices.Equal(a.CIDRs, b.CIDRs)
	})
}

// demand is what policies hold themselves, and which domain sets they name.
type demand struct {
	patterns              set[domain.Pattern]
	destinations, sources set[netip.Prefix]
	domainSets            set[string]
}

func demandOf(policies ...*policy.Policy) demand {
	d := demand{set[domain.Pattern]{}, set[netip.Prefix]{}, set[netip.Prefix]{}, set[string]{}}
	for _, p := range policies {
		for _, rule := range p.Rules.Rules {
			d.patterns.add(rule.Domains)
			d.destinations.add(rule.CIDRs)
			d.domainSets.add(rule.DomainSets)
		}
		for _, workload := range p.Rules.Workloads {
			d.sources.add(workload.CIDRs)
		}
	}
	return d
}

func (d demand) contains(other demand) bool {
	return d.patterns.contains(other.patterns) && d.destinations.contains(other.destinations) &&
		d.sources.contains(other.sources) && d.domainSets.contains(other.domainSets)
}

// set is a set of things.
type set[E comparable] map[E]struct{}

func (s set[E]) add(list []E) {
	for _, e := range list {
		s[e] = struct{}{}
	}
}

func (s set[E]) contains(other set[E]) bool {
	for e := range other {
		if _, known := s[e]; !known {
			return false
		}
	}
	return true
}
