package ruleset

import (
	"fmt"

	"github.com/nameward/nameward/api/domain"
	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
)

// changeBytes bounds the domains of one change, so that the messages which carry a large set are small.
const changeBytes = 32 << 10

// setEdits are domain sets by name, with what changes gather to do to each: of the thousands of changes
// that bring a large set none costs a copy of it.
type setEdits map[string]*setEdit

type setEdit struct {
	base  DomainSet
	edits map[domain.Pattern]bool
}

func (rs *RuleSet) edits() setEdits {
	sets := make(setEdits, len(rs.DomainSets))
	for _, set := range rs.DomainSets {
		sets[set.Name] = &setEdit{base: set}
	}
	return sets
}

// edit gathers that domains come or go. A set that does not exist is made.
func (e setEdits) edit(message *agentv1.RuleSetDomainSet, present bool) error {
	set := e[message.GetName()]
	if set == nil {
		if err := CheckDomainSetName("name", message.GetName()); err != nil {
			return fmt.Errorf("read domain set: %w", err)
		}
		set = &setEdit{base: DomainSet{Name: message.GetName()}}
		e[message.GetName()] = set
	}
	if set.edits == nil {
		set.edits = make(map[domain.Pattern]bool, len(message.GetDomains()))
	}
	for i, text := range message.GetDomains() {
		pattern, err := domain.ParsePattern(text)
		if err != nil {
			return fmt.Errorf("read domain set %q: %w", message.GetName(), &FieldError{fmt.Sprintf("domains[%d]", i), text, err.Error()})
		}
		set.edits[pattern] = present
	}
	return nil
}

func (e setEdits) made() []DomainSet {
	sets := make([]DomainSet, 0, len(e))
	for _, set := range e {
		if len(set.edits) > 0 {
			set.base = set.base.Edited(set.edits)
		}
		sets = append(sets, set.base)
	}
	return sets
}

// setChanges returns what makes the domain sets of next, and what deletes those that next lacks.
func (rs *RuleSet) setChanges(next *RuleSet) (changes, unused []*agentv1.RuleSetChange) {
	for _, set := range next.DomainSets {
		before, known := rs.DomainSet(set.Name)
		if known && before.Same(set) {
			continue
		}
		removed, added := Difference(before.Domains, set.Domains)
		if known && len(removed) > len(before.Domains)/2 {
			changes = append(changes, deleteDomainSet(set.Name))
			removed, added, known = nil, set.Domains, false
		}
		changes = append(changes, split(set.Name, removed, removeDomains)...)
		changes = append(changes, split(set.Name, added, addDomains)...)
		if !known && len(added) == 0 {
			changes = append(changes, addDomains(&agentv1.RuleSetDomainSet{Name: set.Name}))
		}
	}
	for _, set := range rs.DomainSets {
		if _, ok := next.DomainSet(set.Name); !ok {
			unused = append(unused, deleteDomainSet(set.Name))
		}
	}
	return changes, unused
}

// Difference tells what left a list of domains and what came. Both lists are sorted as a DomainSet's.
func Difference(old, now []domain.Pattern) (removed, added []domain.Pattern) {
	for len(old) > 0 && len(now) > 0 {
		switch order := comparePatterns(old[0], now[0]); {
		case order == 0:
			old, now = old[1:], now[1:]
		case order < 0:
			removed, old = append(removed, old[0]), old[1:]
		default:
			added, now = append(added, now[0]), now[1:]
		}
	}
	return append(removed, old...), append(added, now...)
}

// split makes changes of bounded size of a list.
func split(name string, domains []domain.Pattern, change func(*agentv1.RuleSetDomainSet) *agentv1.RuleSetChange) []*agentv1.RuleSetChange {
	var changes []*agentv1.RuleSetChange
	for len(domains) > 0 {
		message, size := &agentv1.RuleSetDomainSet{Name: name}, 0
		for len(domains) > 0 && size < changeBytes {
			text := domains[0].String()
			message.Domains = append(message.Domains, text)
			size, domains = size+len(text), domains[1:]
		}
		changes = append(changes, change(message))
	}
	return changes
}

func addDomains(set *agentv1.RuleSetDomainSet) *agentv1.RuleSetChange {
	return &agentv1.RuleSetChange{Change: &agentv1.RuleSetChange_AddDomains{AddDomains: set}}
}

func removeDomains(set *agentv1.RuleSetDomainSet) *agentv1.RuleSetChange {
	return &agentv1.RuleSetChange{Change: &agentv1.RuleSetChange_RemoveDomains{RemoveDomains: set}}
}

func deleteDomainSet(name string) *agentv1.RuleSetChange {
	return &agentv1.RuleSetChange{Change: &agentv1.RuleSetChange_DeleteDomainSet{DeleteDomainSet: name}}
}
