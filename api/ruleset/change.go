package ruleset

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
)

// Compare orders policies as they are evaluated.
func (p Policy) Compare(other Policy) int {
	return cmp.Or(cmp.Compare(p.Priority, other.Priority), cmp.Compare(p.Name, other.Name))
}

// Equal reports whether the policies are the same in every field.
func (p Policy) Equal(other Policy) bool { return reflect.DeepEqual(p, other) }

// With returns the rule set that results from the changes, in order. An error names the policy and its
// faults; rs is not changed.
func (rs *RuleSet) With(changes []*agentv1.RuleSetChange) (*RuleSet, error) {
	policies, sets := rs.byName(), rs.edits()
	for _, change := range changes {
		var err error
		switch change := change.GetChange().(type) {
		case *agentv1.RuleSetChange_PutPolicy:
			var policy Policy
			if policy, err = parsePolicy(change.PutPolicy); err != nil {
				return nil, fmt.Errorf("read policy %q: %w", change.PutPolicy.GetName(), err)
			}
			policies[policy.Name] = policy
		case *agentv1.RuleSetChange_DeletePolicy:
			delete(policies, change.DeletePolicy)
		case *agentv1.RuleSetChange_AddDomains:
			err = sets.edit(change.AddDomains, true)
		case *agentv1.RuleSetChange_RemoveDomains:
			err = sets.edit(change.RemoveDomains, false)
		case *agentv1.RuleSetChange_DeleteDomainSet:
			delete(sets, change.DeleteDomainSet)
		default:
			err = fmt.Errorf("apply change %T: %s", change, notSupported)
		}
		if err != nil {
			return nil, err
		}
	}
	next := New(slices.Collect(maps.Values(policies)), sets.made()...)
	return next, next.checkDomainSets()
}

// checkDomainSets returns an error when a rule names a set that the rule set lacks: it would match
// nothing, which for a rule that denies opens doors.
func (rs *RuleSet) checkDomainSets() error {
	var errs []error
	for _, policy := range rs.Policies {
		for i, rule := range policy.Rules {
			for j, name := range rule.DomainSets {
				if _, ok := rs.DomainSet(name); !ok {
					fault := &FieldError{fmt.Sprintf("rules[%d].domain_sets[%d]", i, j), name, "is not part of the rule set"}
					errs = append(errs, fmt.Errorf("read policy %q: %w", policy.Name, fault))
				}
			}
		}
	}
	return errors.Join(errs...)
}

// New returns the rule set of the policies that are not disabled, and of the domain sets.
func New(policies []Policy, sets ...DomainSet) *RuleSet {
	enabled := slices.DeleteFunc(slices.Clone(policies), func(p Policy) bool { return p.Mode == Disabled })
	slices.SortFunc(enabled, Policy.Compare)
	sets = slices.SortedFunc(slices.Values(sets), func(a, b DomainSet) int { return cmp.Compare(a.Name, b.Name) })
	return &RuleSet{Policies: enabled, DomainSets: sets}
}

// Changes returns the changes that make next of rs; none when they are the same.
func (rs *RuleSet) Changes(next *RuleSet) []*agentv1.RuleSetChange {
	changes, unused := rs.setChanges(next)
	gone := rs.byName()
	for _, policy := range next.Policies {
		if before, ok := gone[policy.Name]; !ok || !before.Equal(policy) {
			changes = append(changes, putPolicy(policy.ToProto()))
		}
		delete(gone, policy.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(gone)) {
		changes = append(changes, &agentv1.RuleSetChange{Change: &agentv1.RuleSetChange_DeletePolicy{DeletePolicy: name}})
	}
	return append(changes, unused...)
}

func (rs *RuleSet) byName() map[string]Policy {
	policies := make(map[string]Policy, len(rs.Policies))
	for _, policy := range rs.Policies {
		policies[policy.Name] = policy
	}
	return policies
}

func putPolicy(policy *agentv1.RuleSetPolicy) *agentv1.RuleSetChange {
	return &agentv1.RuleSetChange{Change: &agentv1.RuleSetChange_PutPolicy{PutPolicy: policy}}
}
