package adminserver

import (
	"errors"
	"slices"

	"github.com/nameward/nameward/api/domain"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/controlplane/compile"
	"github.com/nameward/nameward/controlplane/policy"
	"github.com/nameward/nameward/controlplane/store"
)

// policyFilter returns what selects policies. An error joins a *ruleset.FieldError for every fault.
func policyFilter(s *store.Store, message *namewardv1.PolicyFilter) (filter store.PolicyFilter, err error) {
	var faults []error
	filter.DomainSet = message.GetDomainSet()
	if text := message.GetNode(); text != "" {
		labels, err := labelsOf(s, "filter.node", text)
		faults = append(faults, err)
		if filter.Node = labels; labels == nil {
			filter.Node = map[string]string{}
		}
	}
	filter.Domain, err = filteredDomain(message)
	faults = append(faults, err)
	for _, mode := range []ruleset.Mode{ruleset.Enforce, ruleset.Audit, ruleset.Disabled} {
		if mode.ToProto() == message.GetMode() {
			filter.Mode = &mode
		}
	}
	return filter, errors.Join(faults...)
}

// filteredDomain returns the domain that a filter asks for, the zero Name for none. An error is a *ruleset.FieldError.
func filteredDomain(message *namewardv1.PolicyFilter) (domain.Name, error) {
	if message.GetDomain() == "" {
		return domain.Name{}, nil
	}
	name, err := domain.ParseName(message.GetDomain())
	if err != nil {
		return domain.Name{}, &ruleset.FieldError{Field: "filter.domain", Value: message.GetDomain(), Reason: err.Error()}
	}
	return name, nil
}

// all returns what passes every test; nil when there is none.
func all[T any](tests []func(T) bool) func(T) bool {
	if len(tests) == 0 {
		return nil
	}
	return func(item T) bool {
		return !slices.ContainsFunc(tests, func(test func(T) bool) bool { return !test(item) })
	}
}

// labelsOf returns the labels of a node that a field of a request names.
func labelsOf(s *store.Store, field, name string) (map[string]string, error) {
	id, err := node.ParseResourceName(name)
	if err != nil {
		return nil, &ruleset.FieldError{Field: field, Value: name, Reason: err.Error()}
	}
	n, err := s.Node(id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, &ruleset.FieldError{Field: field, Value: name, Reason: "no such node has ever connected"}
	}
	if err != nil {
		return nil, err //nolint:wrapcheck // names the resource
	}
	return n.Labels, nil
}

// policyOf returns the policy that a field of a request names.
func policyOf(s *store.Store, field, name string) (*policy.Policy, error) {
	p, err := s.Policy(name)
	if errors.Is(err, store.ErrNotFound) {
		return nil, &ruleset.FieldError{Field: field, Value: name, Reason: "no such policy exists"}
	}
	return p, err //nolint:wrapcheck // names the resource
}

// rulesOf returns the rule set of one policy.
func rulesOf(snapshot policy.Snapshot, p *policy.Policy) *ruleset.RuleSet {
	alone := []*policy.Policy{p}
	return compile.Rules(alone, snapshot.DomainSetsOf(alone))
}
