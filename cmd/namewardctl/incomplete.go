package main

import (
	"slices"
	"strings"
)

// sayIncomplete says, once, which policy servers cannot be reached, so that what their nodes did may be missing.
func (p *program) sayIncomplete(unreachable []string) {
	if len(unreachable) == 0 || slices.Equal(unreachable, p.incomplete) {
		return
	}
	p.incomplete = unreachable
	p.complain("not complete: the policy server cannot reach " + strings.Join(unreachable, ", ") + ", and what their nodes do is not known")
}
