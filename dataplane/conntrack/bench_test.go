package conntrack

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/dataplane/enforce/enforcetest"
)

// BenchmarkCut walks through 10,000 connections, each to an address with a name of its own, under a policy
// of 100,000 patterns.
func BenchmarkCut(b *testing.B) {
	const connections, patterns = 10_000, 100_000
	all := enforcetest.Patterns(patterns)
	rules := func(domains []domain.Pattern, rules ...ruleset.Rule) *ruleset.RuleSet {
		return ruleset.New([]ruleset.Policy{{
			Name: "policies/test", Workloads: []ruleset.Workload{{CIDRs: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}}},
			Rules: append(rules, ruleset.Rule{Domains: domains}),
		}})
	}
	full, less := rules(all), rules(all[1:])
	for _, c := range []struct {
		name          string
		before, after *ruleset.RuleSet
		want          uint64
	}{
		{"a pattern more", less, full, 0},
		{"a pattern less", full, less, 1},
		{"all cut", rules(all, ruleset.Rule{}), rules(all[connections:]), connections},
	} {
		b.Run(c.name, func(b *testing.B) {
			m := manyConnections(b, connections)
			for b.Loop() {
				got, err := m.Cut(b.Context(), []*ruleset.RuleSet{c.before}, c.after)
				if err != nil || got.Cut != c.want {
					b.Fatalf("got %+v, %v, want %d cut", got, err, c.want)
				}
				b.StopTimer()
				if _, err := m.Cut(b.Context(), []*ruleset.RuleSet{c.after}, rules(all, ruleset.Rule{})); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

// manyConnections opens connections to addresses with a name each.
func manyConnections(b *testing.B, count int) *machine {
	m := newMachine(b, true)
	for i := range count {
		destination := netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})
		m.Open(ruleset.Connection{
			Source: netip.AddrFrom4([4]byte{10, 1, byte(i>>8) + 1, byte(i)}), Destination: destination, Protocol: ruleset.TCP, Port: 443,
		})
		name, err := domain.ParseName(fmt.Sprintf("n%07d.example", i))
		if err != nil {
			b.Fatal(err)
		}
		m.Name(destination, name)
	}
	return m
}
