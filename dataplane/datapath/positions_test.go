package datapath

import (
	"testing"

	"github.com/nameward/nameward/api/ruleset"
)

// rulesOf makes policies with so many rules each.
func rulesOf(counts map[string]int, order ...string) *ruleset.RuleSet {
	rules := &ruleset.RuleSet{}
	for _, name := range order {
		rules.Policies = append(rules.Policies, ruleset.Policy{Name: name, Rules: make([]ruleset.Rule, counts[name])})
	}
	return rules
}

func TestPositionsNameTheRule(t *testing.T) {
	rules := rulesOf(map[string]int{"policies/a": 2, "policies/none": 0, "policies/b": 3}, "policies/a", "policies/none", "policies/b")
	p := positionsOf(rules)
	position := uint32(0)
	for _, policy := range rules.Policies {
		for i := range policy.Rules {
			if name, rule, ok := p.rule(position); name != policy.Name || rule != i || !ok {
				t.Errorf("position %d: got %s rule %d (%v), want %s rule %d", position, name, rule, ok, policy.Name, i)
			}
			position++
		}
	}
	if name, rule, ok := p.rule(position); ok {
		t.Errorf("position %d behind the last: got %s rule %d, want none", position, name, rule)
	}
}

func TestPositionsOfRuleSetsDiffer(t *testing.T) {
	digest := func(a, b int, order ...string) uint64 {
		return positionsOf(rulesOf(map[string]int{"policies/a": a, "policies/b": b}, order...)).digest
	}
	seen := map[uint64]bool{
		digest(1, 2, "policies/a", "policies/b"): true,
		digest(2, 1, "policies/a", "policies/b"): true,
		digest(1, 2, "policies/b", "policies/a"): true,
		digest(3, 0, "policies/a"):               true,
		digest(0, 0):                             true,
	}
	if len(seen) != 5 {
		t.Errorf("%d digests of 5 rule sets in which positions differ", len(seen))
	}
	if !seen[digest(1, 2, "policies/a", "policies/b")] {
		t.Error("two digests of one order")
	}
}

func TestPositionsKeptAreBounded(t *testing.T) {
	d := &Datapath{}
	for i := range 3 * positionsKept {
		d.keepPositions(positionsOf(rulesOf(map[string]int{"policies/a": i}, "policies/a")))
		d.keepPositions(positionsOf(rulesOf(map[string]int{"policies/a": 0}, "policies/a"))) // again and again
	}
	if len(d.positions) != positionsKept {
		t.Errorf("%d kept, want %d", len(d.positions), positionsKept)
	}
}
