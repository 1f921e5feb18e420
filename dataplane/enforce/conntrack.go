package enforce

import (
	"context"

	"github.com/nameward/nameward/api/ruleset"
)

// Conntrack is the node's table of established connections.
type Conntrack interface {
	// Cut sees to it that the connections that a change of the rules no longer allows are judged like new
	// ones. A connection is cut when after denies it, and one of before allowed it: unless the policy that
	// did so in the last of those that allowed it keeps what is established. A connection that was cut and
	// that after allows is restored. Whether a rule is reached goes by every name that the destination
	// ever had. On error some connections may not have been dealt with; what was done is counted.
	Cut(ctx context.Context, before []*ruleset.RuleSet, after *ruleset.RuleSet) (CutCount, error)
}

// CutCount is what became of established connections.
type CutCount struct {
	Cut  uint64 // no longer allowed
	Kept uint64 // no longer allowed, but kept by the policy that allowed them
	// Restored were cut before, and are allowed again.
	Restored uint64
	// Faults is how many connections could not be dealt with.
	Faults uint64
}

func (c CutCount) plus(other CutCount) CutCount {
	return CutCount{c.Cut + other.Cut, c.Kept + other.Kept, c.Restored + other.Restored, c.Faults + other.Faults}
}
