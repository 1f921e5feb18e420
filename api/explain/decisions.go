package explain

import (
	"net/netip"
	"strings"

	"github.com/nameward/nameward/api/ruleset"
)

// decisions remembers what the rules decide for destinations that are the same to them: the many addresses
// of one name mostly are.
type decisions struct {
	cidrs []netip.Prefix // of all rules, once they are needed
	known map[string]ruleset.Explanation
}

// of returns what the rules decide. Only the destination differs between the connections of an answer.
func (d *decisions) of(rules *ruleset.RuleSet, c ruleset.Connection) ruleset.Explanation {
	if d.known == nil {
		d.known, d.cidrs = map[string]ruleset.Explanation{}, cidrsOf(rules)
	}
	var key strings.Builder
	for _, name := range c.Names {
		key.WriteString(name.String())
		key.WriteByte(' ')
	}
	for _, prefix := range d.cidrs {
		if prefix.Contains(c.Destination) {
			key.WriteString(prefix.String())
			key.WriteByte(' ')
		}
	}
	e, ok := d.known[key.String()]
	if !ok {
		e = rules.Decide(c)
		d.known[key.String()] = e
	}
	return e
}

func cidrsOf(rules *ruleset.RuleSet) []netip.Prefix {
	var cidrs []netip.Prefix
	seen := map[netip.Prefix]bool{}
	for _, policy := range rules.Policies {
		for _, rule := range policy.Rules {
			for _, prefix := range rule.CIDRs {
				if !seen[prefix] {
					seen[prefix] = true
					cidrs = append(cidrs, prefix)
				}
			}
		}
	}
	return cidrs
}
