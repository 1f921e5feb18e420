package store

import (
	"maps"
	"slices"

	"github.com/hashicorp/go-memdb"

	"github.com/nameward/nameward/controlplane/policy"
)

// editsLimit is how many changes are worked into a list of policies one by one; behind more, it is read anew.
const editsLimit = 256

// current is what Snapshot returns, and the index of the policies, kept beside the tables: to walk thousands of policies at each change would take
// longer than all else that the change costs. Its methods are called under Store.mu.
type current struct {
	size policy.Size
	// snapshot is as it was before the edits. What it holds was handed out and is not changed.
	snapshot policy.Snapshot
	// edits are by name: of a policy that changes again and again only the last version is held.
	edits map[string]edit
	// index leads to policies, of which there are count.
	index policyIndex
	count int
}

// edit has one policy in place of another; nil for none.
type edit struct{ before, after *policy.Policy }

func newCurrent(txn *memdb.Txn) current {
	c := current{snapshot: policy.Snapshot{DomainSets: map[string]*policy.DomainSet{}}, edits: map[string]edit{}}
	byName := all[*policy.Policy](txn, tablePolicies, indexID)
	c.index, c.count = newPolicyIndex(byName), len(byName)
	c.snapshot.Policies = all[*policy.Policy](txn, tablePolicies, indexOrder)
	for _, p := range c.snapshot.Policies {
		c.size = c.size.Plus(p.Size)
	}
	for _, set := range all[*policy.DomainSet](txn, tableDomainSets, indexID) {
		c.snapshot.DomainSets[set.Name] = set
		c.size = c.size.Plus(set.Size())
	}
	return c
}

func (c *current) replacePolicy(name string, before, after *policy.Policy) {
	c.index.replace(before, after)
	if before != nil {
		c.size = c.size.Minus(before.Size)
		c.count--
	}
	if after != nil {
		c.size = c.size.Plus(after.Size)
		c.count++
	}
	if earlier, again := c.edits[name]; again {
		before = earlier.before
	}
	// One more than are looked at says that they are too many.
	if len(c.edits) <= editsLimit {
		c.edits[name] = edit{before, after}
	}
}

func (c *current) replaceDomainSet(before, after *policy.DomainSet) {
	sets := maps.Clone(c.snapshot.DomainSets)
	if before != nil {
		c.size = c.size.Minus(before.Size())
		delete(sets, before.Name)
	}
	if after != nil {
		c.size = c.size.Plus(after.Size())
		sets[after.Name] = after
	}
	c.snapshot.DomainSets = sets
}

// take returns the snapshot of what the tables hold.
func (c *current) take(txn *memdb.Txn) policy.Snapshot {
	switch {
	case len(c.edits) > editsLimit:
		c.snapshot.Policies = all[*policy.Policy](txn, tablePolicies, indexOrder)
	case len(c.edits) > 0:
		c.snapshot.Policies = edited(c.snapshot.Policies, c.edits)
	}
	clear(c.edits)
	return c.snapshot
}

// edited returns the list with the edits made, in order of evaluation as before.
func edited(policies []*policy.Policy, edits map[string]edit) []*policy.Policy {
	list := make([]*policy.Policy, len(policies), len(policies)+len(edits))
	copy(list, policies)
	compare := func(a, b *policy.Policy) int { return a.Rules.Compare(b.Rules) }
	for _, e := range edits {
		if e.before != nil {
			at, found := slices.BinarySearchFunc(list, e.before, compare)
			if found && e.after != nil && compare(e.before, e.after) == 0 {
				list[at] = e.after
				continue
			}
			if found {
				list = slices.Delete(list, at, at+1)
			}
		}
		if e.after != nil {
			at, _ := slices.BinarySearchFunc(list, e.after, compare)
			list = slices.Insert(list, at, e.after)
		}
	}
	return list
}
