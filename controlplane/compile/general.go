package compile

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/ruleset"
)

// generalPatterns counts those patterns of which a node holds fewer: names are held against them one by
// one, against all whose base is above the name.
type generalPatterns struct {
	count int
	bases map[string]int // how many have it
}

func generalOf(patterns set[domain.Pattern]) generalPatterns {
	g := generalPatterns{bases: map[string]int{}}
	for p := range patterns {
		if p.General() {
			g.count++
			g.bases[p.Base().String()]++
		}
	}
	return g
}

const generalText = "domain patterns with a `*` elsewhere than in a leading `*.`"

// check returns a *CapacityError when they are too many, in all or for the names below some base.
func (g generalPatterns) check() error {
	if g.count > ruleset.MaxGeneralPatterns {
		return &CapacityError{generalText, g.count, ruleset.MaxGeneralPatterns}
	}
	var worst CapacityError
	for base := range g.bases {
		count := g.above(base)
		if count < worst.Count {
			continue
		}
		what := fmt.Sprintf("%s for names below %s", generalText, base)
		if base == root {
			what = generalText + " for every name"
		}
		if count > worst.Count || what < worst.What {
			worst = CapacityError{what, count, ruleset.MaxGeneralPatternsOfName}
		}
	}
	if worst.Count > worst.Limit {
		return &worst
	}
	return nil
}

const root = "."

// above counts the patterns whose base is this name, or above it.
func (g generalPatterns) above(name string) int {
	if name == root {
		return g.bases[root]
	}
	count := g.bases[root]
	labels := strings.Split(name, ".")
	for i := range slices.Backward(labels) {
		count += g.bases[strings.Join(labels[i:], ".")]
	}
	return count
}
