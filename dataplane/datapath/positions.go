package datapath

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"sort"

	"github.com/nameward/nameward/api/ruleset"
)

// positionsKept is of how many rule sets that were in force lately the rules can still be named.
const positionsKept = 16

// positions says which rule has which position among all rules of a rule set.
type positions struct {
	digest   uint64 // equal for rule sets in which every position means the same
	policies []string
	ends     []uint32 // of each policy, the position behind its last rule
}

func positionsOf(rules *ruleset.RuleSet) *positions {
	p := &positions{}
	hash := sha256.New()
	end := uint32(0)
	for _, policy := range rules.Policies {
		end += uint32(len(policy.Rules)) //nolint:gosec // bounded by what a server sends
		p.policies = append(p.policies, policy.Name)
		p.ends = append(p.ends, end)
		_, _ = fmt.Fprintf(hash, "%q %d\n", policy.Name, end) // never fails
	}
	p.digest = binary.LittleEndian.Uint64(hash.Sum(nil))
	return p
}

// rule names the rule at a position.
func (p *positions) rule(position uint32) (policy string, rule int, ok bool) {
	i := sort.Search(len(p.ends), func(i int) bool { return position < p.ends[i] })
	if i == len(p.ends) {
		return "", 0, false
	}
	begin := uint32(0)
	if i > 0 {
		begin = p.ends[i-1]
	}
	return p.policies[i], int(position - begin), true
}

// keepPositions remembers what positions mean in a rule set that is about to be in force.
func (d *Datapath) keepPositions(p *positions) {
	d.positions = slices.DeleteFunc(d.positions, func(old *positions) bool { return old.digest == p.digest })
	d.positions = append(d.positions, p)
	if len(d.positions) > positionsKept {
		d.positions = slices.Delete(d.positions, 0, 1)
	}
}

func (k *kernel) putRuleSet(generation uint32, p *positions) error {
	if err := k.RuleSets.Put(generation, p.digest); err != nil {
		return fmt.Errorf("write rule set of generation: %w", err)
	}
	return nil
}
