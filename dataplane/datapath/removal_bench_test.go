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

// BenchmarkRemoval takes one pattern after the other from a list of 100,000, while the node knows live mappings of
// some of its names, each in the kernel too. The wait for programs of the switch before is not counted, as in
// BenchmarkApply.
func BenchmarkRemoval(b *testing.B) {
	for _, live := range []int{0, 1000, 50_000} {
		b.Run(fmt.Sprintf("%d live", live), func(b *testing.B) {
			f := newFixture(b, func(cfg *Config) { cfg.MaxPatterns = 131_072; cfg.MaxMappings = 262_144 })
			patterns := make([]domain.Pattern, 0, 100_000)
			for i := range cap(patterns) {
				patterns = append(patterns, pattern(b, fmt.Sprintf("host%d.site%d.example", i, i%1000)))
			}
			now := time.Now()
			for i := range live {
				f.table.Record(observe.Answer{
					Names:     []domain.Name{patterns[2*i].Base()},
					Addresses: []observe.Address{{Address: netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), Names: 1}},
					LearnedAt: now, ExpiresAt: now.Add(time.Hour),
				})
			}
			rules := func() *ruleset.RuleSet {
				return &ruleset.RuleSet{Policies: []ruleset.Policy{{
					Name: "policies/many", Workloads: []ruleset.Workload{{Host: true}},
					Rules: []ruleset.Rule{{Domains: slices.Clone(patterns)}},
				}}}
			}
			f.apply(b, rules())
			var took []time.Duration
			b.ResetTimer()
			for b.Loop() {
				b.StopTimer()
				f.switched = f.switched.Add(-2 * settled) // as if that time had passed
				if err := f.locked(f.forgetSettled); err != nil {
					b.Fatal(err)
				}
				if err := f.prepareNext(); err != nil {
					b.Fatal(err)
				}
				patterns = slices.Delete(patterns, 50_000, 50_001)
				next := rules()
				b.StartTimer()
				start := time.Now()
				f.apply(b, next)
				took = append(took, time.Since(start))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms/removal-p50")
		})
	}
}
