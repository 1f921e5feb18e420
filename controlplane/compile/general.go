package compile

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/controlplane/policy"
)

// generalPatterns collects those patterns of which a node holds fewer: names are held against them one by
// one, against all whose base is above the name.
type generalPatterns struct {
	distinct map[domain.Pattern]struct{}
	bases    map[string]int // how many have it
}

func newGeneralPatterns() generalPatterns {
	return generalPatterns{map[domain.Pattern]struct{}{}, map[string]int{}}
}

func generalOf(p *policy.Policy) generalPatterns {
	g := newGeneralPatterns()
	for _, rule := range p.Rules.Rules {
		g.add(rule.Domains)
	}
	return g
}

func countGeneral(patterns []domain.Pattern) (n int) {
	for _, p := range patterns {
		if p.General() {
			n++
		}
	}
	return n
}

func (g generalPatterns) add(patterns []domain.Pattern) {
	for _, p := range patterns {
		if !p.General() {
			continue
		}
		if _, known := g.distinct[p]; !known {
			g.distinct[p] = struct{}{}
			g.bases[p.Base().String()]++
		}
	}
}

func (g generalPatterns) contain(others generalPatterns) bool {
	for p := range others.distinct {
		if _, known := g.distinct[p]; !known {
			return false
		}
	}
	return true
}

const generalText = "domain patterns with a `*` elsewhere than in a leading `*.`"

// check returns a *CapacityError when they are too many, in all or for the names below some base.
func (g generalPatterns) check() error {
	if len(g.distinct) > ruleset.MaxGeneralPatterns {
		return &CapacityError{generalText, len(g.distinct), ruleset.MaxGeneralPatterns}
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
