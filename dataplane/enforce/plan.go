package enforce

import "time"

// step is one thing that the reconciler does.
type step uint8

const (
	stepApply step = iota // put the wanted rules in the maps
	stepAdopt             // take the wanted revision for applied: its rules are those in the maps
	stepHooks             // check the hooks, and mend them
	stepSave              // put what is in force on disk
)

// progress is how far the reconciler has come.
type progress struct {
	applied *Revision // in the maps
	saved   *Revision
	refused *Revision // could not be applied
	retryAt time.Time // when it is tried once more
	hooksAt time.Time // when the hooks are due for a check
}

// plan returns the steps from what is to what is wanted (nil: nothing yet), in order. Maps come before
// hooks, so that a hook never calls programs whose rules are older than what is on disk; the disk comes
// last, so that it never holds what was not in force.
func plan(have progress, want *Revision, now time.Time) []step {
	var steps []step
	reached := have.applied
	switch {
	case want == nil || want == have.applied:
	case have.applied != nil && want.ID == have.applied.ID:
		steps = append(steps, stepAdopt)
		reached = want
	case want != have.refused || !now.Before(have.retryAt):
		steps = append(steps, stepApply)
		reached = want
	}
	if reached != have.applied || !now.Before(have.hooksAt) {
		steps = append(steps, stepHooks)
	}
	if reached != have.saved {
		steps = append(steps, stepSave)
	}
	return steps
}
