package compile

import (
	"slices"
	"strings"

	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/controlplane/policy"
)

// markEvery is behind how many policies the way to an id is marked: about a third of a megabyte, which takes less time to
// go than what else a change costs.
const markEvery = 1024

// Identity is the id of the rule set that Rules returns, and what that of a like one is made of.
type Identity struct {
	ID ruleset.ID
	// selected are the policies, marks the places behind each markEvery of them, and last that behind all.
	selected []*policy.Policy
	marks    []ruleset.Mark
	last     ruleset.Mark
}

// Identify returns the identity of policies and of the domain sets that they name. What they share with those of the
// identity before, if there is one, is not gone through again: all policies where only domain sets changed, and where a
// policy did, those before it.
func Identify(selected []*policy.Policy, domainSets []*policy.DomainSet, before *Identity) (*Identity, error) {
	next := &Identity{selected: selected}
	hasher, from, err := next.begin(before)
	if err != nil {
		return nil, err
	}
	for i := from; i < len(selected); i++ {
		hasher.Policy(selected[i].Canonical)
		if (i+1)%markEvery != 0 {
			continue
		}
		mark, err := hasher.Mark()
		if err != nil {
			return nil, err
		}
		next.marks = append(next.marks, mark)
	}
	if next.last, err = hasher.Mark(); err != nil {
		return nil, err
	}
	sets := make([]ruleset.DomainSet, 0, len(domainSets))
	for _, set := range domainSets {
		sets = append(sets, set.DomainSet)
	}
	slices.SortFunc(sets, func(a, b ruleset.DomainSet) int { return strings.Compare(a.Name, b.Name) })
	next.ID = hasher.ID(sets)
	return next, nil
}

// begin returns a hasher that has gone as far as the policies are those of the identity before, and how far that is.
func (id *Identity) begin(before *Identity) (hasher *ruleset.Hasher, from int, err error) {
	if before == nil || len(before.selected) != len(id.selected) {
		return ruleset.NewHasher(len(id.selected)), 0, nil // the number comes first
	}
	shared := 0
	if isSame(id.selected, before.selected) {
		shared = len(id.selected)
	}
	for shared < len(id.selected) && id.selected[shared] == before.selected[shared] {
		shared++
	}
	marks := shared / markEvery
	id.marks = slices.Clip(before.marks[:marks])
	switch {
	case shared == len(id.selected):
		hasher, err = before.last.Hasher()
		return hasher, shared, err
	case marks == 0:
		return ruleset.NewHasher(len(id.selected)), 0, nil
	}
	hasher, err = before.marks[marks-1].Hasher()
	return hasher, marks * markEvery, err
}
