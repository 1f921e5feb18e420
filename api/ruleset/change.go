package ruleset

import (
	"cmp"
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
	policies := rs.byName()
	for _, change := range changes {
		switch change := change.GetChange().(type) {
		case *agentv1.RuleSetChange_PutPolicy:
			policy, err := parsePolicy(change.PutPolicy)
			if err != nil {
				return nil, fmt.Errorf("read policy %q: %w", change.PutPolicy.GetName(), err)
			}
			policies[policy.Name] = policy
		case *agentv1.RuleSetChange_DeletePolicy:
			delete(policies, change.DeletePolicy)
		default:
			return nil, fmt.Errorf("apply change %T: %s", change, notSupported)
		}
	}
	return New(slices.Collect(maps.Values(policies))), nil
}

// New returns the rule set of the policies that are not disabled.
func New(policies []Policy) *RuleSet {
	enabled := slices.DeleteFunc(slices.Clone(policies), func(p Policy) bool { return p.Mode == Disabled })
	slices.SortFunc(enabled, Policy.Compare)
	return &RuleSet{Policies: enabled}
}

// Changes returns the changes that make next of rs; none when they are the same.
func (rs *RuleSet) Changes(next *RuleSet) []*agentv1.RuleSetChange {
	var changes []*agentv1.RuleSetChange
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
	return changes
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
