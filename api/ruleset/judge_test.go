package ruleset_test

import (
	"fmt"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/ruleset"
)

// anyConnection draws a connection to and from what the drawn policies name.
func anyConnection(t *rapid.T) ruleset.Connection {
	c := ruleset.Connection{
		Local:       rapid.Bool().Draw(t, "local"),
		Destination: netip.MustParseAddr(rapid.SampledFrom([]string{"10.0.0.1", "10.1.1.1", "fd00::1", "192.0.2.1"}).Draw(t, "destination")),
		Protocol:    rapid.SampledFrom([]ruleset.Protocol{ruleset.TCP, ruleset.UDP, ruleset.ICMP, ruleset.SCTP}).Draw(t, "protocol"),
		Port:        rapid.SampledFrom([]uint16{80, 443}).Draw(t, "port"),
	}
	if !c.Local {
		c.Source = netip.MustParseAddr(rapid.SampledFrom([]string{"10.9.0.1", "172.16.0.1"}).Draw(t, "source"))
		c.Interface = rapid.SampledFrom([]string{"veth1", "eth0"}).Draw(t, "interface")
	}
	for _, text := range rapid.SliceOfN(rapid.SampledFrom([]string{"a.test", "x.a.test", "b.test", "s3-x.a.test", "c.test"}), 0, 3).Draw(t, "names") {
		n, err := domain.ParseName(text)
		if err != nil {
			t.Fatal(err)
		}
		c.Names = append(c.Names, n)
	}
	return c
}

// anyRules draws a rule set with workloads, domain sets and general patterns.
func anyRules(t *rapid.T, label string) *ruleset.RuleSet {
	pattern := rapid.Custom(func(t *rapid.T) domain.Pattern {
		p, err := domain.ParsePattern(rapid.SampledFrom([]string{"a.test", "*.a.test", "b.test", "s3-*.a.test", "*"}).Draw(t, "pattern"))
		if err != nil {
			t.Fatal(err)
		}
		return p
	})
	policies := rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) ruleset.Policy {
		p := anyPolicy(t)
		if rapid.Bool().Draw(t, "forwarded") {
			p.Workloads = []ruleset.Workload{{Interface: rapid.SampledFrom([]string{"veth+", "eth0", ""}).Draw(t, "by"), CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}
		}
		for i := range p.Rules {
			p.Rules[i].Domains = nil
			if rapid.Bool().Draw(t, "set") {
				p.Rules[i].DomainSets = []string{"domainSets/s"}
			}
		}
		return p
	}), 0, 4, func(p ruleset.Policy) string { return p.Name }).Draw(t, label)
	set := ruleset.NewDomainSet("domainSets/s", rapid.SliceOfN(pattern, 0, 3).Draw(t, label+" set"))
	return ruleset.New(policies, set)
}

func TestJudgeAgreesWithExplain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules := anyRules(t, "rules")
		if rapid.Bool().Draw(t, "inline") {
			rules = anyRuleSet(t, "inline rules")
		}
		judge := ruleset.NewJudge(rules)
		for range 4 {
			c := anyConnection(t)
			want := rules.Explain(c)
			got, policy := judge.Verdict(judge.Select(c), c)
			if name := nameOf(policy); got != want.Verdict || name != want.Policy {
				t.Errorf("%+v: got %v by %q, want %v by %q", c, got, name, want.Verdict, want.Policy)
			}
		}
	})
}

func nameOf(p *ruleset.Policy) string {
	if p == nil {
		return ""
	}
	return p.Name
}

// What Narrows rules out does not happen, and what is only added to what is allowed, it rules out.
func TestNarrows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		before, after := anyRules(t, "before"), anyRules(t, "after")
		if rapid.Bool().Draw(t, "alike") {
			after = edited(t, before)
		}
		if before.Narrows(after) {
			return
		}
		for range 8 {
			c := anyConnection(t)
			if before.Explain(c).Verdict == ruleset.Allow && after.Explain(c).Verdict == ruleset.Deny {
				t.Errorf("%+v turns from allowed to denied", c)
			}
		}
	})
}

// edited changes one thing of a rule set.
func edited(t *rapid.T, rules *ruleset.RuleSet) *ruleset.RuleSet {
	next, err := ruleset.FromProto(rules.ToProto())
	if err != nil {
		t.Fatal(err)
	}
	other := anyRules(t, "other")
	switch rapid.IntRange(0, 2).Draw(t, "edit") {
	case 0:
		next.DomainSets = other.DomainSets
	case 1:
		next.Policies = append(next.Policies[:0:0], next.Policies...)
		for i := range next.Policies {
			if len(other.Policies) > 0 {
				next.Policies[i].Rules = append(next.Policies[i].Rules, other.Policies[0].Rules...)
			}
		}
	case 2:
		for i := range next.Policies {
			for j := range next.Policies[i].Rules {
				rule := &next.Policies[i].Rules[j]
				if len(rule.CIDRs) > 0 {
					rule.CIDRs = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("10.0.0.1/32"), netip.MustParsePrefix("fd00::/8")}
				}
			}
		}
	}
	return next
}

func TestAdditionsDoNotNarrow(t *testing.T) {
	rules := func(domains, set int, more ...ruleset.Rule) *ruleset.RuleSet {
		var list, large []domain.Pattern
		for i := range max(domains, set) {
			p, err := domain.ParsePattern(fmt.Sprintf("n%d.test", i))
			if err != nil {
				t.Fatal(err)
			}
			if i < domains {
				list = append(list, p)
			}
			if i < set {
				large = append(large, p)
			}
		}
		return ruleset.New([]ruleset.Policy{{
			Name: "policies/p", Workloads: []ruleset.Workload{{Host: true}},
			Rules: append([]ruleset.Rule{{Domains: list}, {DomainSets: []string{"domainSets/s"}}}, more...),
		}}, ruleset.NewDomainSet("domainSets/s", large))
	}
	allow, deny := ruleset.Rule{CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, ruleset.Rule{Action: ruleset.Deny}
	tests := []struct {
		change        string
		before, after *ruleset.RuleSet
		narrows       bool
	}{
		{"nothing", rules(2, 2), rules(2, 2), false},
		{"a domain more", rules(2, 2), rules(3, 2), false},
		{"a domain less", rules(3, 2), rules(2, 2), true},
		{"a domain more in a set", rules(2, 2), rules(2, 3), false},
		{"a domain less in a set", rules(2, 3), rules(2, 2), true},
		{"a rule more that allows", rules(2, 2), rules(2, 2, allow), false},
		{"a rule more that denies", rules(2, 2), rules(2, 2, deny), true},
		{"a rule less", rules(2, 2, allow), rules(2, 2), true},
		{"the first policy", &ruleset.RuleSet{}, rules(2, 2), true},
		{"the last policy", rules(2, 2), &ruleset.RuleSet{}, false},
	}
	for _, test := range tests {
		if got := test.before.Narrows(test.after); got != test.narrows {
			t.Errorf("%s: got %t, want %t", test.change, got, test.narrows)
		}
	}
}
