package node

import (
	"fmt"
	"net/netip"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/e2e/lab"
)

const setName = "domainSets/bench"

// patternsOf makes patterns of names: of every fifth one that for the names below it.
func patternsOf(names []string, count int) ([]domain.Pattern, error) {
	if len(names) < count {
		return nil, fmt.Errorf("make patterns: %d names are less than %d", len(names), count)
	}
	patterns := make([]domain.Pattern, count)
	for i := range patterns {
		text := names[i]
		if i%5 == 4 {
			text = "*." + text
		}
		var err error
		if patterns[i], err = domain.ParsePattern(text); err != nil {
			return nil, fmt.Errorf("make pattern of %q: %w", text, err)
		}
	}
	return patterns, nil
}

// rulesOf lets the lab's clients reach the names of a domain set, on the ports of the web.
func rulesOf(patterns []domain.Pattern) *ruleset.RuleSet {
	return withSet(ruleset.NewDomainSet(setName, append([]domain.Pattern{}, patterns...)))
}

func withSet(set ruleset.DomainSet) *ruleset.RuleSet {
	return ruleset.New([]ruleset.Policy{{
		Name:      "policies/bench",
		Workloads: []ruleset.Workload{{CIDRs: []netip.Prefix{netip.PrefixFrom(lab.ClientV4, 24).Masked()}}},
		Rules: []ruleset.Rule{{
			DomainSets: []string{setName},
			Ports:      []ruleset.Ports{{Protocol: ruleset.TCP, First: 80, Last: 80}, {Protocol: ruleset.TCP, First: 443, Last: 443}},
		}},
	}}, set)
}

// edited returns rules with a pattern more, or less.
func edited(rules *ruleset.RuleSet, pattern domain.Pattern, present bool) *ruleset.RuleSet {
	set, _ := rules.DomainSet(setName)
	return withSet(set.Edited(map[domain.Pattern]bool{pattern: present}))
}
