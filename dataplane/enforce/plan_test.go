package enforce

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nameward/nameward/api/ruleset"
)

func TestPlan(t *testing.T) {
	now := time.Unix(1000, 0)
	later, earlier := now.Add(time.Second), now.Add(-time.Second)
	first := &Revision{Number: 1, ID: ruleset.ID{1}}
	second := &Revision{Number: 2, ID: ruleset.ID{2}}
	renumbered := &Revision{Number: 3, ID: ruleset.ID{1}}
	cases := []struct {
		name string
		have progress
		want *Revision
		plan []step
	}{
		{"nothing wanted yet", progress{hooksAt: later}, nil, nil},
		{"hooks are due", progress{hooksAt: earlier}, nil, []step{stepHooks}},
		{"the first rule set", progress{hooksAt: later}, first, []step{stepApply, stepHooks, stepSave}},
		{"the saved one after a start", progress{saved: first}, first, []step{stepApply, stepHooks}},
		{"reached", progress{applied: first, saved: first, hooksAt: later}, first, nil},
		{"a newer one", progress{applied: first, saved: first, hooksAt: later}, second, []step{stepApply, stepHooks, stepSave}},
		{"equal rules under a newer number", progress{applied: first, saved: first, hooksAt: later}, renumbered, []step{stepAdopt, stepHooks, stepSave}},
		{"refused, not yet due again", progress{applied: first, saved: first, refused: second, retryAt: later, hooksAt: later}, second, nil},
		{"refused, due again", progress{applied: first, saved: first, refused: second, retryAt: earlier, hooksAt: later}, second, []step{stepApply, stepHooks, stepSave}},
		{"not saved", progress{applied: second, saved: first, hooksAt: later}, second, []step{stepSave}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.plan, plan(c.have, c.want, now)); diff != "" {
				t.Errorf("plan (-want +got): %s", diff)
			}
		})
	}
}
