package explain_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/nameward/nameward/api/explain"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

// BenchmarkAnswer explains a name with many addresses under many rules, none of which matches.
func BenchmarkAnswer(b *testing.B) {
	for _, size := range []struct{ rules, addresses int }{{100, 1}, {10_000, 1}, {10_000, 1000}} {
		b.Run(fmt.Sprintf("%d rules, %d addresses", size.rules, size.addresses), func(b *testing.B) {
			policy := &namewardv1.Policy{Name: "policies/many"}
			for i := range size.rules {
				policy.Rules = append(policy.Rules, &namewardv1.Rule{
					Action: namewardv1.Rule_ALLOW, Domains: []string{fmt.Sprintf("a%d.example", i), fmt.Sprintf("*.b%d.example", i)},
				})
			}
			var many mappings
			for i := range size.addresses {
				m := mapping(b, "www.shop.example edge.cdn.example 192.0.2.1", time.Minute)
				m.Address = netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})
				many = append(many, m)
			}
			facts := explain.Facts{Rules: rules(b, policy), Mappings: many, Now: now}
			q, err := explain.Parse(question(b, "host www.shop.example TCP 443"))
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				explain.Answer(q, facts)
			}
		})
	}
}
