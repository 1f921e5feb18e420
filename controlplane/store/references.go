package store

import (
	"fmt"

	"github.com/nameward/nameward/controlplane/policy"
)

// PreconditionError says which other objects would have to be otherwise for a change to happen.
type PreconditionError struct {
	// Name is the resource name of what was to change.
	Name string
	// Violations is never empty.
	Violations []Violation
}

// Violation is one object that would have to be otherwise.
type Violation struct {
	// Missing says that there is no such object; otherwise it refers to what was to change.
	Missing bool
	// Subject is its resource name.
	Subject string
	// Field is the path at which one of the two names the other, as in `rules[0].domain_sets[1]`.
	Field string
}

// Error names the object and the first violation, and says how many more there are.
func (e *PreconditionError) Error() string {
	first := e.Violations[0]
	text := fmt.Sprintf("%s: %s %s", e.Name, first.Subject, first.Reason())
	if more := len(e.Violations) - 1; more > 0 {
		text += fmt.Sprintf(" (and %d more)", more)
	}
	return text
}

// Reason says what is the matter with the object.
func (v Violation) Reason() string {
	if v.Missing {
		return fmt.Sprintf("does not exist (%s)", v.Field)
	}
	return "names it in " + v.Field
}

// CheckReferences returns a *PreconditionError that lists every domain set which the policy names and which
// does not exist.
func (s *Store) CheckReferences(p *policy.Policy) error {
	txn := s.db.Txn(false)
	var missing []Violation
	for i, rule := range p.Message.GetRules() {
		for j, name := range rule.GetDomainSets() {
			set, err := findDomainSet(txn, name)
			if err != nil {
				return err
			}
			if set == nil {
				missing = append(missing, Violation{Missing: true, Subject: name, Field: fieldOf(i, j)})
			}
		}
	}
	if len(missing) > 0 {
		return &PreconditionError{p.Name, missing}
	}
	return nil
}

// CheckUnreferenced returns a *PreconditionError that lists every policy which names the domain set.
func (s *Store) CheckUnreferenced(domainSet string) error {
	var users []Violation
	policies, err := s.PoliciesOf(domainSet)
	if err != nil {
		return err
	}
	for _, p := range policies {
		for i, rule := range p.Message.GetRules() {
			for j, name := range rule.GetDomainSets() {
				if name == domainSet {
					users = append(users, Violation{Subject: p.Name, Field: fieldOf(i, j)})
				}
			}
		}
	}
	if len(users) > 0 {
		return &PreconditionError{domainSet, users}
	}
	return nil
}

func fieldOf(rule, domainSet int) string {
	return fmt.Sprintf("rules[%d].domain_sets[%d]", rule, domainSet)
}
