package datapath

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/dataplane/observe"
)

// BenchmarkApply puts rule sets of 100,000 patterns in force, each with one pattern more than the one
// before, while the node knows 50,000 live mappings. The wait for programs of the switch before, which
// changes at a quiet rate do not meet, is not counted.
func BenchmarkApply(b *testing.B) {
	f := newFixture(b, func(cfg *Config) { cfg.MaxPatterns = 131_072; cfg.MaxMappings = 262_144 })
	patterns := make([]domain.Pattern, 0, 110_000)
	for i := range cap(patterns) {
		patterns = append(patterns, pattern(b, fmt.Sprintf("host%d.site%d.example", i, i%1000)))
	}
	now := time.Now()
	for i := range 50_000 {
		name := patterns[2*i].Base()
		f.table.Record(observe.Answer{
			Names:     []domain.Name{name, parseName(b, "cdn"+name.String())},
			Addresses: []observe.Address{{Address: netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), Names: 2}},
			LearnedAt: now, ExpiresAt: now.Add(time.Hour),
		})
	}
	rules := func(n int) *ruleset.RuleSet {
		return &ruleset.RuleSet{Policies: []ruleset.Policy{{
			Name: "policies/many", Workloads: []ruleset.Workload{{Host: true}},
			Rules: []ruleset.Rule{{Domains: slices.Clone(patterns[:n])}},
		}}}
	}
	start := time.Now()
	f.apply(b, rules(100_000))
	first := time.Since(start)
	f.apply(b, rules(100_000))
	n, took := 100_000, make([]time.Duration, 0, b.N)
	b.ResetTimer()
	for b.Loop() {
		b.StopTimer()
		n++
		next := rules(min(n, cap(patterns)))
		if err := f.settle(b.Context()); err != nil {
			b.Fatal(err)
		}
		f.switched = time.Time{}
		b.StartTimer()
		start := time.Now()
		f.apply(b, next)
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(first.Microseconds())/1000, "ms/first")
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms/apply-p50")
}

func pattern(t testing.TB, s string) domain.Pattern {
	t.Helper()
	p, err := domain.ParsePattern(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// BenchmarkDrain takes in answers of fresh names, each with an alias and an address, as they gather in a moment of
// 20,000 a second.
func BenchmarkDrain(b *testing.B) {
	f := newFixture(b, func(cfg *Config) { cfg.MaxMappings = 262_144 })
	const gathered = 200
	number := 0
	for b.Loop() {
		b.StopTimer()
		for range gathered {
			number++
			name, alias := fmt.Sprintf("host%d.site%d.example", number, number%1000), fmt.Sprintf("edge%d.cdn.example", number)
			f.resolve(b, name, 300, fmt.Sprintf("%s. 300 IN CNAME %s.", name, alias), fmt.Sprintf("%s. 300 IN A 198.18.%d.%d", alias, number>>8&255, number&255))
		}
		b.StartTimer()
		if err := f.locked(f.drain); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(number), "ns/answer")
}
