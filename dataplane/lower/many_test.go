package lower_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/dataplane/lower"
)

// BenchmarkManyPrefixes lowers rule sets of many workloads, and of many rules, each with a CIDR of its own.
// The cost of each must not grow with their number.
func BenchmarkManyPrefixes(b *testing.B) {
	prefix := func(i int) []netip.Prefix {
		return []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)}
	}
	for _, count := range []int{100, 10_000} {
		for _, of := range []string{"workloads", "rules"} {
			b.Run(fmt.Sprintf("%d %s", count, of), func(b *testing.B) {
				policy := ruleset.Policy{Name: "policies/many", Workloads: []ruleset.Workload{{Host: true}}, Rules: []ruleset.Rule{{}}}
				for i := range count {
					if of == "workloads" {
						policy.Workloads = append(policy.Workloads, ruleset.Workload{CIDRs: prefix(i)})
					} else {
						policy.Rules = append(policy.Rules, ruleset.Rule{CIDRs: prefix(i)})
					}
				}
				rules := ruleset.New([]ruleset.Policy{policy})
				for b.Loop() {
					if _, err := lower.NewState(1, lower.Memory{}).Lower(rules); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*count), "ns/prefix")
			})
		}
	}
}
