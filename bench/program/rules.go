package program

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/ruleset"
)

// clients are the workload that most measurements have, and one of its addresses.
var (
	clients = netip.MustParsePrefix("10.1.0.0/16")
	client  = netip.MustParseAddr("10.1.0.7")
)

// subdomain is in front of a name whose pattern stands for those below it.
const subdomain = "x1"

// A known name is asked for, and a pattern matches it.
type known struct {
	name    string
	pattern domain.Pattern
}

// know makes a pattern of each name: of every fourth, one for the names below it.
func know(names []string) ([]known, error) {
	list := make([]known, 0, len(names))
	for i, name := range names {
		text := name
		if i%4 == 3 {
			name, text = subdomain+"."+name, "*."+name
		}
		pattern, err := domain.ParsePattern(text)
		if err != nil {
			return nil, fmt.Errorf("make pattern: %w", err)
		}
		list = append(list, known{name, pattern})
	}
	return list, nil
}

func patternsOf(list []known) []domain.Pattern {
	patterns := make([]domain.Pattern, 0, len(list))
	for _, k := range list {
		patterns = append(patterns, k.pattern)
	}
	return patterns
}

// oneSet is a rule set of one policy, which allows its workload all of one domain set.
func oneSet(patterns []domain.Pattern) *ruleset.RuleSet {
	set := ruleset.NewDomainSet("domainSets/known", slices.Clone(patterns))
	return &ruleset.RuleSet{
		Policies: []ruleset.Policy{{
			Name: "policies/bench", Workloads: []ruleset.Workload{{CIDRs: []netip.Prefix{clients}}},
			Rules: []ruleset.Rule{{DomainSets: []string{set.Name}}},
		}},
		DomainSets: []ruleset.DomainSet{set},
	}
}
