package compile

import (
	"github.com/nameward/nameward/controlplane/policy"
)

// Change is what makes one list of policies of another. Both are in order of evaluation.
type Change struct {
	Removed, Added []*policy.Policy
}

// Difference returns the change from one list of policies to the next. Both are in order of evaluation; what they
// share is not looked into.
func Difference(before, after []*policy.Policy) (c Change) {
	if isSame(before, after) {
		return c
	}
	for len(before) > 0 && len(after) > 0 {
		if before[0] == after[0] {
			before, after = before[1:], after[1:]
			continue
		}
		order := before[0].Rules.Compare(after[0].Rules)
		if order <= 0 {
			c.Removed = append(c.Removed, before[0])
			before = before[1:]
		}
		if order >= 0 {
			c.Added = append(c.Added, after[0])
			after = after[1:]
		}
	}
	return Change{append(c.Removed, before...), append(c.Added, after...)}
}

// isSame reports whether two lists are one, which nobody need look into: lists are not changed.
func isSame(a, b []*policy.Policy) bool { return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) }

// Concerns returns the part of the change that a node with these labels sees.
func (c Change) Concerns(labels map[string]string) Change {
	return Change{Select(c.Removed, labels), Select(c.Added, labels)}
}

// IsNone reports whether nothing changes.
func (c Change) IsNone() bool { return len(c.Removed)+len(c.Added) == 0 }

// Of returns the policies with the change made.
func (c Change) Of(policies []*policy.Policy) []*policy.Policy {
	next := make([]*policy.Policy, 0, len(policies)+len(c.Added)-len(c.Removed))
	removed, added := c.Removed, c.Added
	for _, p := range policies {
		if len(removed) > 0 && p == removed[0] {
			removed = removed[1:]
			continue
		}
		for len(added) > 0 && added[0].Rules.Compare(p.Rules) < 0 {
			next, added = append(next, added[0]), added[1:]
		}
		next = append(next, p)
	}
	return append(next, added...)
}
