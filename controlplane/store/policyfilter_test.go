package store_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/nameward/nameward/api/domain"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/controlplane/policy"
	"github.com/nameward/nameward/controlplane/store"
)

// filtered says without any index whether a policy is selected.
func filtered(s *store.Store, p *policy.Policy, f store.PolicyFilter) bool {
	matches := func(pattern domain.Pattern) bool { return pattern.Match(f.Domain) }
	covers := f.Domain.IsZero()
	for _, rule := range p.Rules.Rules {
		covers = covers || slices.ContainsFunc(rule.Domains, matches)
		for _, name := range rule.DomainSets {
			set, err := s.DomainSet(name)
			covers = covers || err == nil && slices.ContainsFunc(set.Domains, matches)
		}
	}
	return covers && (f.DomainSet == "" || p.Names(f.DomainSet)) && (f.Mode == nil || p.Rules.Mode == *f.Mode) &&
		(f.Node == nil || p.Rules.Mode != ruleset.Disabled && p.Selects(f.Node))
}

var filterPatterns = []string{"a.test", "*.a.test", "x.a.test", "*", "www.*.test", "s3-*.a.test", "*.test", "b.test", "*.s3-*.a.test", "test"}

func drawFiltered(t *rapid.T, s *store.Store) {
	ctx := context.Background()
	name := fmt.Sprintf("policies/p%d", rapid.IntRange(0, 60).Draw(t, "policy"))
	switch rapid.IntRange(0, 9).Draw(t, "kind") {
	case 0, 1:
		_ = s.DeletePolicy(ctx, name, store.Guard{}) // it may not be there
		return
	case 2:
		set, err := policy.ParseDomainSet(&namewardv1.DomainSet{
			Name:    rapid.SampledFrom([]string{"domainSets/s", "domainSets/t"}).Draw(t, "set"),
			Domains: rapid.SliceOfNDistinct(rapid.SampledFrom(filterPatterns), 0, 2, rapid.ID[string]).Draw(t, "in set"),
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.PutDomainSet(ctx, set, store.Guard{}); err != nil {
			t.Fatal(err)
		}
		return
	}
	message := &namewardv1.Policy{Name: name, Mode: namewardv1.Policy_Mode(rapid.IntRange(0, 3).Draw(t, "mode")), NodeSelector: &namewardv1.NodeSelector{
		MatchLabels: rapid.MapOfN(rapid.SampledFrom([]string{"role", "zone"}), rapid.SampledFrom([]string{"x", "y"}), 0, 2).Draw(t, "selector"),
	}}
	for range rapid.IntRange(1, 2).Draw(t, "rules") {
		rule := &namewardv1.Rule{Action: namewardv1.Rule_ALLOW, Domains: rapid.SliceOfN(rapid.SampledFrom(filterPatterns), 0, 3).Draw(t, "domains")}
		if rapid.IntRange(0, 9).Draw(t, "wide") == 0 {
			for i := range 300 {
				rule.Domains = append(rule.Domains, fmt.Sprintf("h%d.test", i))
			}
		}
		for _, set := range []string{"domainSets/s", "domainSets/t"} {
			if _, err := s.DomainSet(set); err == nil && rapid.IntRange(0, 3).Draw(t, "names") == 0 {
				rule.DomainSets = append(rule.DomainSets, set)
			}
		}
		message.Rules = append(message.Rules, rule)
	}
	p, err := policy.Parse(message)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutPolicy(ctx, p, store.Guard{}); err != nil {
		t.Fatal(err)
	}
}

func drawFilter(t *rapid.T) (f store.PolicyFilter) {
	if rapid.Bool().Draw(t, "by domain") {
		name, err := domain.ParseName(rapid.SampledFrom([]string{"a.test", "x.a.test", "s3-1.a.test", "y.s3-1.a.test", "h7.test", "www.z.test", "nowhere", "test"}).Draw(t, "name"))
		if err != nil {
			t.Fatal(err)
		}
		f.Domain = name
	}
	if rapid.IntRange(0, 2).Draw(t, "by set") == 0 {
		f.DomainSet = rapid.SampledFrom([]string{"domainSets/s", "domainSets/t", "domainSets/none"}).Draw(t, "filter set")
	}
	if rapid.IntRange(0, 2).Draw(t, "by node") == 0 {
		f.Node = rapid.MapOfN(rapid.SampledFrom([]string{"role", "zone", "other"}), rapid.SampledFrom([]string{"x", "y"}), 0, 3).Draw(t, "labels")
	}
	if rapid.IntRange(0, 2).Draw(t, "by mode") == 0 {
		mode := rapid.SampledFrom([]ruleset.Mode{ruleset.Enforce, ruleset.Audit, ruleset.Disabled}).Draw(t, "filter mode")
		f.Mode = &mode
	}
	return f
}

// What a filter selects by the index is what it selects of all, page by page, whatever came, changed and went.
func TestFiltersSelectByIndexWhatTheySelectOfAll(t *testing.T) {
	s, err := store.Open(t.Context(), &volatile{})
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		for range rapid.IntRange(0, 60).Draw(rt, "changes") {
			drawFiltered(rt, s)
		}
		all, _, err := s.ListPolicies("", 1000, store.PolicyFilter{})
		if err != nil {
			rt.Fatal(err)
		}
		f := drawFilter(rt)
		var want, got []string
		for _, p := range all {
			if filtered(s, p, f) {
				want = append(want, p.Name)
			}
		}
		after, size := "", rapid.IntRange(1, 5).Draw(rt, "page")
		for more := true; more; {
			var page []*policy.Policy
			if page, more, err = s.ListPolicies(after, size, f); err != nil {
				rt.Fatal(err)
			}
			if more && len(page) != size {
				rt.Fatalf("a page has %d policies, and there are more", len(page))
			}
			for _, p := range page {
				got, after = append(got, p.Name), p.Name
			}
		}
		if !slices.Equal(got, want) {
			rt.Errorf("%+v selects %v, want %v", f, got, want)
		}
	})
}

// thousands is a store of 100,000 policies, of 40 roles, each with three names of its own and some that many have.
func thousands(b *testing.B) *store.Store {
	b.Helper()
	s, err := store.Open(b.Context(), &volatile{})
	if err != nil {
		b.Fatal(err)
	}
	for i := range 100_000 {
		mode := namewardv1.Policy_ENFORCE
		if i%1000 == 7 {
			mode = namewardv1.Policy_AUDIT
		}
		p, err := policy.Parse(&namewardv1.Policy{
			Name: fmt.Sprintf("policies/p%06d", i), Mode: mode, NodeSelector: &namewardv1.NodeSelector{MatchLabels: map[string]string{"role": fmt.Sprintf("r%d", i%40)}},
			Rules: []*namewardv1.Rule{{Action: namewardv1.Rule_ALLOW, Domains: []string{
				fmt.Sprintf("h%d.example.com", i), fmt.Sprintf("*.d%d.example.net", i), fmt.Sprintf("*.shared%d.example.org", i%20),
			}}},
		})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.PutPolicy(context.Background(), p, store.Guard{}); err != nil {
			b.Fatal(err)
		}
	}
	return s
}

// BenchmarkListPolicies lists the first page, and with "behind" one from the middle, of 100,000 policies.
func BenchmarkListPolicies(b *testing.B) {
	s := thousands(b)
	named := func(text string) domain.Name {
		name, err := domain.ParseName(text)
		if err != nil {
			b.Fatal(err)
		}
		return name
	}
	audit := ruleset.Audit
	for _, c := range []struct {
		name, after string
		filter      store.PolicyFilter
		want        int
	}{
		{"own name", "", store.PolicyFilter{Domain: named("h77777.example.com")}, 1},
		{"below a name", "", store.PolicyFilter{Domain: named("x.d99999.example.net")}, 1},
		{"of 5,000", "", store.PolicyFilter{Domain: named("x.shared3.example.org")}, 100},
		{"of 5,000 behind", "policies/p050000", store.PolicyFilter{Domain: named("x.shared3.example.org")}, 100},
		{"nothing", "", store.PolicyFilter{Domain: named("x.nowhere.example.org")}, 0},
		{"node", "", store.PolicyFilter{Node: map[string]string{"role": "r39", "zone": "east"}}, 100},
		{"node and name", "", store.PolicyFilter{Node: map[string]string{"role": "r39"}, Domain: named("h77799.example.com")}, 1},
		{"mode", "", store.PolicyFilter{Mode: &audit}, 100},
		{"set", "", store.PolicyFilter{DomainSet: "domainSets/none"}, 0},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				page, _, err := s.ListPolicies(c.after, 100, c.filter)
				if err != nil || len(page) != c.want {
					b.Fatalf("%d policies, %v", len(page), err)
				}
			}
		})
	}
}
