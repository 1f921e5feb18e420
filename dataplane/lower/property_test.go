package lower_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/dataplane/enforce"
	"github.com/nameward/nameward/dataplane/lower"
	"github.com/nameward/nameward/dataplane/lower/lowertest"
)

// What rules and connections are made of: few, so that they meet.
var (
	names      = []string{"com", "example.com", "a.example.com", "b.a.example.com", "org", "a.org", "xexample.com"}
	prefixes   = []string{"0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "::/0", "fd00::/8", "fd00:1::/32", "fd00:1::7/128"}
	addresses  = []string{"10.1.2.3", "10.1.9.9", "10.9.9.9", "192.0.2.1", "fd00:1::7", "fd00:1::8", "fd00:2::1", "2001:db8::1"}
	interfaces = []string{"+", "eth+", "eth0", "eth1", "e+", "veth7"}
	links      = []string{"eth0", "eth1", "eth12", "veth7", "lo", "e"}
	setNames   = []string{"domainSets/a", "domainSets/b"}
	protocols  = []ruleset.Protocol{ruleset.TCP, ruleset.UDP, ruleset.SCTP, ruleset.ICMP}
)

func drawPrefixes(t *rapid.T, least int) []netip.Prefix {
	var all []netip.Prefix
	for _, p := range rapid.SliceOfNDistinct(rapid.SampledFrom(prefixes), least, 3, rapid.ID).Draw(t, "prefixes") {
		all = append(all, netip.MustParsePrefix(p))
	}
	return all
}

func drawWorkload(t *rapid.T) ruleset.Workload {
	switch rapid.IntRange(0, 5).Draw(t, "workload") {
	case 0:
		return ruleset.Workload{Host: true}
	case 4, 5:
		return drawProcesses(t)
	case 1:
		return ruleset.Workload{CIDRs: drawPrefixes(t, 1)}
	case 2:
		return ruleset.Workload{Interface: rapid.SampledFrom(interfaces).Draw(t, "interface")}
	default:
		return ruleset.Workload{CIDRs: drawPrefixes(t, 1), Interface: rapid.SampledFrom(interfaces).Draw(t, "interface")}
	}
}

// Few users and names of control groups, so that they meet; some of the units stand above one another,
// and one is called like a control group that systemd does not know.
var (
	users   = []uint32{0, 1, 1<<32 - 2}
	cgroups = []string{"/", "/a.slice", "/a.slice/a.slice", "/a.slice/b.service", "/a.slice/b.service/x", "/x", "/x/b.service", "/_cpu.service", "/a.slice/_cpu.service/b.service"}
	units   = []string{"a.slice", "b.service", "cpu.service", "_cpu.service"}
)

func drawProcesses(t *rapid.T) ruleset.Workload {
	var w ruleset.Workload
	for w.UID == nil && w.Cgroup == "" && w.Unit == "" {
		if rapid.Bool().Draw(t, "by user") {
			w.UID = new(uint32)
			*w.UID = rapid.SampledFrom(users).Draw(t, "user")
		}
		if rapid.Bool().Draw(t, "by path") {
			w.Cgroup = rapid.SampledFrom(cgroups).Draw(t, "path")
		}
		if rapid.Bool().Draw(t, "by unit") {
			w.Unit = rapid.SampledFrom(units).Draw(t, "unit")
		}
	}
	return w
}

// drawProcess says which process opens a connection, or that none does.
func drawProcess(t *rapid.T, c *ruleset.Connection) {
	if !rapid.Bool().Draw(t, "process") {
		return
	}
	uid := rapid.SampledFrom(append(users, 7)).Draw(t, "uid")
	c.UID, c.Cgroup = &uid, rapid.SampledFrom(append(cgroups, "/a.slice/y", "/x/y")).Draw(t, "cgroup")
}

// drawPattern draws a pattern of any form, around or before a name.
func drawPattern(t *rapid.T) domain.Pattern {
	name := rapid.SampledFrom(names).Draw(t, "name")
	text := rapid.SampledFrom([]string{"", "", "*.", "*.", "a.*.", "b.a.*.", "a*.", "*b.", "a*b.", "a.a*.", "*.a*.", "*.a.*b.", "*", "a.*", "a*"}).Draw(t, "star")
	if text == "" || text[len(text)-1] == '.' {
		text += name
	}
	pattern, err := domain.ParsePattern(text)
	if err != nil {
		t.Fatal(err)
	}
	return pattern
}

func drawRule(t *rapid.T) ruleset.Rule {
	rule := ruleset.Rule{Action: rapid.SampledFrom([]ruleset.Action{ruleset.Allow, ruleset.Deny}).Draw(t, "action")}
	rule.Domains = rapid.SliceOfNDistinct(rapid.Custom(drawPattern), 0, 4, rapid.ID).Draw(t, "domains")
	rule.DomainSets = slices.Sorted(slices.Values(rapid.SliceOfNDistinct(rapid.SampledFrom(setNames), 0, 2, rapid.ID).Draw(t, "sets")))
	rule.RefusesQueries = rapid.Bool().Draw(t, "refuses")
	rule.CIDRs = drawPrefixes(t, 0)
	for range rapid.IntRange(0, 2).Draw(t, "ports") {
		first := rapid.Uint16Range(1, 6).Draw(t, "first")
		p := ruleset.Ports{Protocol: rapid.SampledFrom(protocols).Draw(t, "protocol"), First: first, Last: first + rapid.Uint16Range(0, 3).Draw(t, "more")}
		if !p.Protocol.HasPorts() {
			p.First, p.Last = 0, 65535
		}
		rule.Ports = append(rule.Ports, p)
	}
	return rule
}

func drawRuleSet(t *rapid.T) *ruleset.RuleSet {
	rules := ruleset.New(nil)
	for _, name := range setNames {
		domains := rapid.SliceOfN(rapid.Custom(drawPattern), 0, 4).Draw(t, name)
		rules.DomainSets = append(rules.DomainSets, ruleset.NewDomainSet(name, domains))
	}
	for i := range rapid.IntRange(0, 4).Draw(t, "policies") {
		rules.Policies = append(rules.Policies, ruleset.Policy{
			Name:      fmt.Sprintf("policies/%d", i),
			Mode:      rapid.SampledFrom([]ruleset.Mode{ruleset.Enforce, ruleset.Audit}).Draw(t, "mode"),
			Workloads: rapid.SliceOfN(rapid.Custom(drawWorkload), 1, 3).Draw(t, "workloads"),
			Rules:     rapid.SliceOfN(rapid.Custom(drawRule), 0, 4).Draw(t, "rules"),
		})
	}
	return rules
}

func drawConnection(t *rapid.T) ruleset.Connection {
	c := ruleset.Connection{
		Local:       rapid.Bool().Draw(t, "local"),
		Source:      netip.MustParseAddr(rapid.SampledFrom(addresses).Draw(t, "source")),
		Interface:   rapid.SampledFrom(links).Draw(t, "link"),
		Destination: netip.MustParseAddr(rapid.SampledFrom(addresses).Draw(t, "destination")),
		Protocol:    rapid.SampledFrom(protocols).Draw(t, "protocol"),
	}
	if c.Protocol.HasPorts() {
		c.Port = rapid.Uint16Range(1, 9).Draw(t, "port")
	}
	if c.Local {
		drawProcess(t, &c)
	}
	c.Names = rapid.SliceOfN(rapid.Custom(drawName), 0, 3).Draw(t, "names")
	return c
}

func drawName(t *rapid.T) domain.Name {
	head := rapid.SampledFrom([]string{"", "z.", "a.", "b.", "ab.", "aab.", "a.ab.", "y.z.", "a.b.z.", "b.a.z.", "a.aa.", "\\255."}).Draw(t, "head")
	name, err := domain.ParseCanonical(head + rapid.SampledFrom(names).Draw(t, "name"))
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// drawState draws a state to which few names are many, or all are few.
func drawState(t *rapid.T) *lower.State {
	state := lower.NewState(1, lower.Memory{})
	state.CommonFrom(rapid.IntRange(1, 6).Draw(t, "common from"))
	return state
}

// drawNext draws the rule set after another: that one with patterns that left or came, or one of its own.
func drawNext(t *rapid.T, rules *ruleset.RuleSet) *ruleset.RuleSet {
	if rapid.IntRange(0, 3).Draw(t, "anew") == 0 {
		return drawRuleSet(t)
	}
	edited := func(patterns []domain.Pattern) []domain.Pattern {
		patterns = slices.DeleteFunc(slices.Clone(patterns), func(domain.Pattern) bool { return rapid.IntRange(0, 2).Draw(t, "leaves") == 0 })
		if rapid.Bool().Draw(t, "comes") {
			if p := drawPattern(t); !slices.Contains(patterns, p) {
				patterns = append(patterns, p)
			}
		}
		return patterns
	}
	next := ruleset.New(nil)
	for _, set := range rules.DomainSets {
		next.DomainSets = append(next.DomainSets, ruleset.NewDomainSet(set.Name, edited(set.Domains)))
	}
	for _, policy := range rules.Policies {
		policy.Rules = slices.Clone(policy.Rules)
		for i := range policy.Rules {
			if rule := &policy.Rules[i]; len(rule.Domains) > 0 { // with none it could match everything
				rule.Domains = append(edited(rule.Domains), drawPattern(t))
				slices.SortFunc(rule.Domains, func(a, b domain.Pattern) int { return strings.Compare(a.String(), b.String()) })
				rule.Domains = slices.Compact(rule.Domains)
			}
		}
		next.Policies = append(next.Policies, policy)
	}
	return next
}

// resolved is what a state says of a name, by the numbers of match sets.
func resolved(s *lower.State, name string) lower.NameSets {
	sets, common := s.Sets(name), s.Common()
	sets.Exact, sets.Below = lower.Reference(common.Of(sets.Exact)), lower.Reference(common.Of(sets.Below))
	return sets
}

// One state lowers several rule sets in turn, so that what it carries over is judged too.
func TestTablesJudgeAsRulesDo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		state := drawState(t)
		rules := drawRuleSet(t)
		for range rapid.IntRange(1, 3).Draw(t, "steps") {
			rules = drawNext(t, rules)
			tables, err := state.Lower(rules)
			if err != nil {
				t.Fatal(err)
			}
			for range 20 {
				c := drawConnection(t)
				e := rules.Explain(c)
				want := lowertest.Verdict{Enforced: e.Enforced, Action: e.Verdict, Audited: e.Audited, AuditVerdict: e.AuditVerdict}
				if got := lowertest.Judge(state, tables, c); got != want {
					t.Fatalf("%+v under %+v:\ngot  %+v\nwant %+v", c, rules, got, want)
				}
				name := drawName(t)
				r := rules.Refuses(c, name)
				wantRefusal := lowertest.Refusal{Refused: r.Refused, AuditRefused: r.AuditRefused}
				if got := lowertest.JudgeQuestion(state, tables, c, name); got != wantRefusal {
					t.Fatalf("question for %s of %+v under %+v: got %+v, want %+v", name, c, rules, got, wantRefusal)
				}
			}
		}
	})
}

// What was learned under one rule set opens, under the next, no more than that allows: a match set that
// both know stands for the same rules, and one that only the first knows for none.
func TestMatchSetsKeepTheirMeaning(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		state, first := drawState(t), drawRuleSet(t)
		second := drawNext(t, first)
		if _, err := state.Lower(first); err != nil {
			t.Fatal(err)
		}
		c := drawConnection(t)
		type pair struct {
			name domain.Name
			set  lower.MatchSet
		}
		var learned []pair
		for _, name := range c.Names {
			for _, set := range state.Match(name) {
				learned = append(learned, pair{name, set})
			}
		}
		tables, err := state.Lower(second)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range learned {
			for key, entries := range tables.Verdicts {
				if key.Kind != lower.DomainDestination || key.ID != uint32(l.set) {
					continue
				}
				for _, e := range entries {
					if !matches(second, ruleAt(second, e.Position), l.name) {
						t.Fatalf("match set %d of %s under %+v\nmatches rule %d of %+v", l.set, l.name, first, e.Position, second)
					}
				}
			}
		}
	})
}

func ruleAt(rules *ruleset.RuleSet, position uint32) ruleset.Rule {
	for _, p := range rules.Policies {
		if position < uint32(len(p.Rules)) {
			return p.Rules[position]
		}
		position -= uint32(len(p.Rules))
	}
	panic("no such rule")
}

func matches(rules *ruleset.RuleSet, rule ruleset.Rule, name domain.Name) bool {
	patterns := slices.Clone(rule.Domains)
	for _, set := range rules.DomainSets {
		if slices.Contains(rule.DomainSets, set.Name) {
			patterns = append(patterns, set.Domains...)
		}
	}
	return slices.ContainsFunc(patterns, func(p domain.Pattern) bool { return p.Match(name) })
}

// A state that takes up another's memory goes on with its match sets.
func TestMemoryOutlivesTheProcess(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		before, rules := drawState(t), drawRuleSet(t)
		for range 3 {
			if _, err := before.Lower(rules); err != nil {
				t.Fatal(err)
			}
			last := rules
			if rules = drawNext(t, last); rapid.Bool().Draw(t, "enough") {
				rules = last
				break
			}
		}
		if _, err := before.Lower(rules); err != nil {
			t.Fatal(err)
		}
		memory, _ := before.Memory()
		after := lower.NewState(before.NextMatchSet(), memory)
		if _, err := after.Lower(rules); err != nil {
			t.Fatal(err)
		}
		for name := range before.Names() {
			got, want := resolved(after, name), resolved(before, name)
			want.List = got.List // a place is not for ever
			if got != want {
				t.Fatalf("%s: got %+v, want %+v", name, got, want)
			}
		}
		for range 20 {
			for _, name := range drawConnection(t).Names {
				if got, want := after.Match(name), before.Match(name); !slices.Equal(got, want) {
					t.Fatalf("%s: got %v, want %v", name, got, want)
				}
			}
		}
	})
}

func TestSameHistoryGivesSameTables(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules := drawRuleSet(t)
		var tables [2]string
		for i := range tables {
			state := lower.NewState(1, lower.Memory{})
			lowered, err := state.Lower(rules)
			if err != nil {
				t.Fatal(err)
			}
			tables[i] = describe(state, lowered)
		}
		if diff := gocmp.Diff(tables[0], tables[1]); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestTooManyRulesForOneDestination(t *testing.T) {
	policy := ruleset.Policy{Name: "policies/long", Workloads: []ruleset.Workload{{Host: true}}}
	for port := range uint16(lower.MaxEntries + 1) {
		policy.Rules = append(policy.Rules, ruleset.Rule{Ports: []ruleset.Ports{{Protocol: ruleset.TCP, First: 2 * port, Last: 2 * port}}})
	}
	rules := &ruleset.RuleSet{Policies: []ruleset.Policy{policy}}
	_, err := lower.NewState(1, lower.Memory{}).Lower(rules)
	if !errors.Is(err, enforce.ErrFull) || !strings.Contains(err.Error(), "policies/long") {
		t.Errorf("got %v, want ErrFull that names the policy", err)
	}
	policy.Rules = policy.Rules[:lower.MaxEntries]
	if _, err := lower.NewState(1, lower.Memory{}).Lower(&ruleset.RuleSet{Policies: []ruleset.Policy{policy}}); err != nil {
		t.Errorf("at the limit: %v", err)
	}
}
