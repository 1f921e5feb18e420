package store

import (
	"fmt"
	"slices"

	"github.com/hashicorp/go-memdb"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/controlplane/policy"
)

// PolicyFilter selects policies that match every field that is set. The zero PolicyFilter selects all.
type PolicyFilter struct {
	// DomainSet is one that a rule of theirs names.
	DomainSet string
	// Domain is a name that a pattern of their rules matches, or of a domain set that a rule names.
	Domain domain.Name
	// Node holds labels of a node to which they apply; nil for any. One in mode DISABLED applies to none.
	Node map[string]string
	// Mode is theirs; nil for any.
	Mode *ruleset.Mode
}

// selects reports whether a policy matches, given the domain sets that have a pattern for the filter's name.
func (f *PolicyFilter) selects(p *policy.Policy, matching map[string]bool) bool {
	switch {
	case f.DomainSet != "" && !p.Names(f.DomainSet),
		f.Node != nil && (p.Rules.Mode == ruleset.Disabled || !p.Selects(f.Node)),
		f.Mode != nil && p.Rules.Mode != *f.Mode:
		return false
	}
	return f.Domain.IsZero() || slices.ContainsFunc(p.Rules.Rules, func(r ruleset.Rule) bool {
		return slices.ContainsFunc(r.Domains, func(pattern domain.Pattern) bool { return pattern.Match(f.Domain) }) ||
			slices.ContainsFunc(r.DomainSets, func(set string) bool { return matching[set] })
	})
}

// walkPart is by how many a list from the index must be shorter than the table to be worth its look-ups.
const walkPart = 8

// ListPolicies returns up to limit policies whose names come after the given one and that the filter selects, in order
// of the names, and whether there are more.
func (s *Store) ListPolicies(after string, limit int, filter PolicyFilter) (policies []*policy.Policy, more bool, err error) {
	matching := s.setsThatMatch(filter.Domain)
	s.mu.RLock()
	txn := s.db.Txn(false)
	lists, indexed := s.current.index.leadingTo(&filter, matching)
	all := s.current.count
	s.mu.RUnlock()
	keep := func(p *policy.Policy) bool { return filter.selects(p, matching) }
	if !indexed || room(lists) > all/walkPart {
		return listAfter(txn, tablePolicies, after, limit, keep)
	}
	for name := range merged(lists, after) {
		object, err := txn.First(tablePolicies, indexID, name)
		if err != nil {
			return nil, false, fmt.Errorf("look up %s: %w", name, err)
		}
		p := object.(*policy.Policy) // the index has what the table has
		switch {
		case !keep(p):
		case len(policies) == limit:
			return policies, true, nil
		default:
			policies = append(policies, p)
		}
	}
	return policies, false, nil
}

// leadingTo returns the shortest lists that together have every policy that the filter selects; false where nothing of
// the filter is indexed.
func (x policyIndex) leadingTo(f *PolicyFilter, matching map[string]bool) (shortest [][]string, indexed bool) {
	offer := func(lists ...[]string) {
		if !indexed || room(lists) < room(shortest) {
			shortest, indexed = lists, true
		}
	}
	if f.DomainSet != "" {
		offer(x[term{termDomainSet, f.DomainSet}])
	}
	if !f.Domain.IsZero() {
		offer(x.ofName(f.Domain, matching)...)
	}
	if f.Node != nil {
		offer(x.ofLabels(f.Node)...)
	}
	if f.Mode != nil {
		offer(x[modeTerm(*f.Mode)])
	}
	return shortest, indexed
}

// setsThatMatch returns the domain sets that have a pattern for a name.
func (s *Store) setsThatMatch(name domain.Name) map[string]bool {
	if name.IsZero() {
		return nil
	}
	matching := map[string]bool{}
	for _, set := range all[*policy.DomainSet](s.db.Txn(false), tableDomainSets, indexID) {
		if _, ok := set.Match(name); ok {
			matching[set.Name] = true
		}
	}
	return matching
}

// PoliciesOf returns every policy that names a domain set, in order of the names.
func (s *Store) PoliciesOf(domainSet string) (policies []*policy.Policy, err error) {
	s.mu.RLock()
	txn, names := s.db.Txn(false), s.current.index[term{termDomainSet, domainSet}]
	s.mu.RUnlock()
	for _, name := range names {
		object, err := txn.First(tablePolicies, indexID, name)
		if err != nil {
			return nil, fmt.Errorf("look up %s: %w", name, err)
		}
		policies = append(policies, object.(*policy.Policy)) // the index has what the table has
	}
	return policies, nil
}

// listAfter returns up to limit objects of a table that keep, if it is not nil, accepts.
func listAfter[T any](txn *memdb.Txn, table, after string, limit int, keep func(T) bool) (list []T, more bool, err error) {
	// One more zero byte makes a bound right behind the key of `after`.
	objects, err := txn.LowerBound(table, indexID, after+"\x00")
	if after == "" {
		objects, err = txn.Get(table, indexID)
	}
	if err != nil {
		return nil, false, fmt.Errorf("list %s: %w", table, err)
	}
	for object := objects.Next(); object != nil; object = objects.Next() {
		item := object.(T) // the index refuses other types
		if keep != nil && !keep(item) {
			continue
		}
		if len(list) == limit {
			return list, true, nil
		}
		list = append(list, item)
	}
	return list, false, nil
}
