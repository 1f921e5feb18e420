package e2e_test

import (
	"net/netip"
	"testing"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/e2e/lab"
)

// TestEnforcement: the names of a policy open, and nothing else does.
func TestEnforcement(t *testing.T) {
	forEachBackend(t, func(t *testing.T, backend string) {
		f := newFleet(t, "--iptables", backend)
		forEachFamily(t, func(t *testing.T, resolver netip.Addr) { f.expectOpen(t, resolver, "evil.example") })
		f.put(clientPolicy("api.example", "*.shop.example"))
		forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
			t.Run("an address without a name is refused", func(t *testing.T) {
				unknown := map[bool]string{true: "198.18.210.1", false: "2001:db8:18:210::1"}[resolver.Is4()]
				if err := f.Connect(netip.MustParseAddr(unknown), lab.ServicePort); !lab.Refused(err) {
					t.Errorf("got %v, want refused", err)
				}
			})
			t.Run("an allowed name opens", func(t *testing.T) { f.expectOpen(t, resolver, "api.example") })
			t.Run("an allowed name opens through its aliases", func(t *testing.T) { f.expectOpen(t, resolver, "www.shop.example") })
			t.Run("another name is refused", func(t *testing.T) { f.expectRefused(t, resolver, "evil.example") })
			t.Run("the apex is not below itself", func(t *testing.T) { f.expectRefused(t, resolver, "shop.example") })
			t.Run("another port of an allowed name is refused", func(t *testing.T) {
				addresses, err := f.Resolve(resolver, "api.example")
				if err != nil {
					t.Fatal(err)
				}
				if err := f.Connect(addresses[0], lab.OtherPort); !lab.Refused(err) {
					t.Errorf("got %v, want refused", err)
				}
			})
			t.Run("a workload that no policy selects is not touched", func(t *testing.T) {
				addresses, err := f.Node.Resolve(resolver, "evil.example")
				if err != nil {
					t.Fatal(err)
				}
				if err := f.Node.Connect(addresses[0], lab.ServicePort); err != nil {
					t.Error(err)
				}
			})
			t.Run("the node's own addresses are not egress", func(t *testing.T) {
				own := map[bool]netip.Addr{true: lab.NodeV4, false: lab.NodeV6}[resolver.Is4()]
				// Nothing listens there: the node's own kernel refuses, and no verdict is counted.
				if err := f.Connect(own, lab.ServicePort); !lab.Refused(err) {
					t.Errorf("got %v, want refused by the node itself", err)
				}
			})
		})
	})
}

// TestRules: order, DENY, CIDR destinations, AUDIT and DISABLED.
func TestRules(t *testing.T) {
	f := newFleet(t)
	policy := clientPolicy("*.shop.example")
	policy.Rules = append([]*namewardv1.Rule{{Action: namewardv1.Rule_DENY, Domains: []string{"tracker.shop.example"}}}, policy.Rules...)
	policy.Rules = append(policy.Rules, &namewardv1.Rule{Action: namewardv1.Rule_ALLOW, Cidrs: []string{"198.18.202.0/24", "2001:db8:18:202::/64"}})
	f.put(policy)
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
		f.expectRefused(t, resolver, "tracker.shop.example")
		f.expectOpen(t, resolver, "www.shop.example")
		f.expectOpen(t, resolver, "evil.example")
		f.expectRefused(t, resolver, "api.example")
	})
	policy.Mode = namewardv1.Policy_AUDIT
	f.put(policy)
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) { f.expectOpen(t, resolver, "api.example") })
	f.counters(func(c map[string]uint64) bool { return c["verdicts_audit"] >= 2 })
	other := clientPolicy("api.example")
	other.Name = "policies/other"
	f.put(other)
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
		f.expectOpen(t, resolver, "api.example")
		f.expectRefused(t, resolver, "www.shop.example")
	})
	other.Mode = namewardv1.Policy_DISABLED
	f.put(other)
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) { f.expectOpen(t, resolver, "www.shop.example") })
}
