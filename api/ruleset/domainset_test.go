package ruleset_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/nameward/nameward/api/domain"
	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/ruleset"
)

func patterns(t interface{ Fatal(...any) }, texts ...string) []domain.Pattern {
	var list []domain.Pattern
	for _, text := range texts {
		pattern, err := domain.ParsePattern(text)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, pattern)
	}
	return list
}

// What sets are made of in the properties: every form, few names, so that they meet.
var setTexts = []string{"*", "a.example", "*.a.example", "b.a.example", "*.example", "x-*.a.example", "www.*.example", "*.b.a.example", "example"}

func drawSet(t *rapid.T, name string) ruleset.DomainSet {
	texts := rapid.SliceOf(rapid.SampledFrom(setTexts)).Draw(t, name)
	return ruleset.NewDomainSet(name, patterns(t, texts...))
}

func drawSets(t *rapid.T, label string) *ruleset.RuleSet {
	var sets []ruleset.DomainSet
	for _, name := range rapid.SliceOfDistinct(rapid.SampledFrom([]string{"domainSets/a", "domainSets/b", "domainSets/c"}), rapid.ID).Draw(t, label) {
		sets = append(sets, drawSet(t, name))
	}
	return ruleset.New(nil, sets...)
}

func TestChangesMakeTheNextDomainSets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		before, next := drawSets(t, "before"), drawSets(t, "next")
		changes := before.Changes(next)
		got, err := before.With(changes)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(next.ToProto(), got.ToProto(), cmp.Comparer(proto.Equal)); diff != "" {
			t.Fatalf("-want +got:\n%s", diff)
		}
		if got.ID() != next.ID() {
			t.Fatal("the id of what changes made is not that of what was wanted")
		}
		for i, set := range next.DomainSets {
			if got.DomainSets[i].Room() != set.Room() {
				t.Fatalf("%s: takes room %d, want %d", set.Name, got.DomainSets[i].Room(), set.Room())
			}
			if !slices.Equal(got.DomainSets[i].General(), set.General()) {
				t.Fatalf("%s: general patterns are %v, want %v", set.Name, got.DomainSets[i].General(), set.General())
			}
		}
		if same := before.ID() == next.ID(); same != (len(changes) == 0) {
			t.Fatalf("equal ids: %t, changes: %v", same, changes)
		}
		whole, err := ruleset.FromProto(next.ToProto())
		if err != nil || whole.ID() != next.ID() {
			t.Fatalf("the message does not come back as it was: %v", err)
		}
	})
}

func TestDomainSetMatchesAsItsPatternsDo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		set := drawSet(t, "domainSets/a")
		n, err := domain.ParseName(rapid.SampledFrom([]string{"example", "a.example", "x-1.a.example", "b.a.example", "c.b.a.example", "www.q.example", "org"}).Draw(t, "name"))
		if err != nil {
			t.Fatal(err)
		}
		pattern, got := set.Match(n)
		want := slices.ContainsFunc(set.Domains, func(p domain.Pattern) bool { return p.Match(n) })
		if got != want || got && !pattern.Match(n) {
			t.Fatalf("%v matches %s: got %t by %s, want %t", set.Domains, n, got, pattern, want)
		}
	})
}

func TestOneChangedDomainIsOneChange(t *testing.T) {
	var list []domain.Pattern
	for i := range 20000 {
		list = append(list, patterns(t, "h"+strings.Repeat("x", i%40)+string(rune('a'+i%26))+"."+strings.Repeat("y", i/1000+1)+".example")...)
	}
	set := ruleset.NewDomainSet("domainSets/large", list)
	before := ruleset.New(nil, set)
	after := ruleset.New(nil, set.Edited(map[domain.Pattern]bool{patterns(t, "new.example")[0]: true}))
	changes := before.Changes(after)
	want := []*agentv1.RuleSetChange{{Change: &agentv1.RuleSetChange_AddDomains{
		AddDomains: &agentv1.RuleSetDomainSet{Name: "domainSets/large", Domains: []string{"new.example"}},
	}}}
	if diff := cmp.Diff(want, changes, cmp.Comparer(proto.Equal)); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	for _, change := range ruleset.New(nil).Changes(after) {
		if size := proto.Size(change); size > 40<<10 {
			t.Errorf("a change of the whole set has %d bytes", size)
		}
	}
}

func withSet(t *testing.T, set ruleset.DomainSet, rules ...*namewardv1.Rule) *ruleset.RuleSet {
	t.Helper()
	return ruleset.New([]ruleset.Policy{policy(t, &namewardv1.Policy{Name: "policies/p", Rules: rules})}, set)
}

func TestExplainByDomainSet(t *testing.T) {
	set := ruleset.NewDomainSet("domainSets/s", patterns(t, "*.good.example"))
	rules := withSet(t, set, &namewardv1.Rule{
		Action: namewardv1.Rule_ALLOW, DomainSets: []string{"domainSets/s"}, QueryAction: namewardv1.Rule_REFUSE,
	})
	c := ruleset.Connection{Local: true, Protocol: ruleset.TCP, Port: 443, Names: []domain.Name{name(t, "a.good.example")}}
	e := rules.Explain(c)
	want := ruleset.Match{Pattern: set.Domains[0], DomainSet: set.Name, Name: c.Names[0]}
	if e.Verdict != ruleset.Allow || e.Evaluations[1].Match != want {
		t.Errorf("got %+v", e)
	}
	if r := rules.Refuses(c, c.Names[0]); !r.Refused {
		t.Errorf("got %+v, want the question refused", r)
	}
	c.Names = []domain.Name{name(t, "good.example")}
	if e := rules.Explain(c); e.Verdict != ruleset.Deny {
		t.Errorf("got %+v, want a name outside the set denied", e)
	}
}

// Without domains a set matches nothing; it does not make a rule one for every destination.
func TestEmptyDomainSetMatchesNothing(t *testing.T) {
	rules := withSet(t, ruleset.DomainSet{Name: "domainSets/s"}, &namewardv1.Rule{Action: namewardv1.Rule_ALLOW, DomainSets: []string{"domainSets/s"}})
	c := ruleset.Connection{Local: true, Names: []domain.Name{name(t, "a.example")}}
	if e := rules.Explain(c); e.Verdict != ruleset.Deny {
		t.Errorf("got %+v, want DENY", e)
	}
}

func TestFaultsOfDomainSetsAreNamed(t *testing.T) {
	_, err := ruleset.FromProto(&agentv1.RuleSet{DomainSets: []*agentv1.RuleSetDomainSet{{Name: "domainSets/s", Domains: []string{"ok.example", "a..b"}}}})
	var fault *ruleset.FieldError
	if !errors.As(err, &fault) || fault.Field != "domains[1]" || fault.Value != "a..b" || !strings.Contains(err.Error(), "domainSets/s") {
		t.Errorf("bad domain: got %v", err)
	}
	rules := withSet(t, ruleset.DomainSet{Name: "domainSets/other"}, &namewardv1.Rule{Action: namewardv1.Rule_DENY, DomainSets: []string{"domainSets/s"}})
	_, err = ruleset.FromProto(rules.ToProto())
	if !errors.As(err, &fault) || fault.Field != "rules[0].domain_sets[0]" || fault.Value != "domainSets/s" {
		t.Errorf("missing set: got %v", err)
	}
}
