package e2e_test

import (
	"net/netip"
	"testing"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/e2e/lab"
)

// TestNeighbours: rules of others that come behind ours and write the whole mark, as multi-homing and
// VPN scripts do, neither open a door nor close one.
func TestNeighbours(t *testing.T) {
	forEachBackend(t, func(t *testing.T, backend string) {
		f := newFleet(t, "--iptables", backend)
		policy := clientPolicy("api.example", "*.shop.example")
		policy.Workloads = append(policy.Workloads, &namewardv1.Workload{Host: true})
		f.put(policy)
		rules := []string{
			"PREROUTING -j CONNMARK --restore-mark", "OUTPUT -j CONNMARK --restore-mark",
			"FORWARD -j MARK --set-mark 7", "OUTPUT -j MARK --set-mark 7", "FORWARD -j CONNMARK --save-mark", "OUTPUT -j CONNMARK --save-mark",
		}
		for _, rule := range rules {
			t.Run(rule, func(t *testing.T) {
				for _, program := range []string{"iptables-", "ip6tables-"} {
					f.iptables(t, program+backend, "-t mangle -A "+rule)
				}
				forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
					f.expectRefused(t, resolver, "evil.example")
					f.expectOpen(t, resolver, "api.example")
					for name, refused := range map[string]bool{"evil.example": true, "api.example": false} {
						addresses, err := f.Node.Resolve(resolver, name)
						f.must(err)
						if err := f.Node.Connect(addresses[0], lab.ServicePort); lab.Refused(err) != refused || !refused && err != nil {
							t.Errorf("the node itself to %s: got %v", name, err)
						}
					}
				})
			})
		}
		forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
			t.Run("what was denied opens once it is allowed", func(t *testing.T) {
				address := f.learn(t, resolver, "late.example")
				if err := f.Connect(address, lab.ServicePort); !lab.Refused(err) {
					t.Errorf("before: got %v, want refused", err)
				}
				f.put(clientPolicy("api.example", "late.example"))
				if err := f.Connect(address, lab.ServicePort); err != nil {
					t.Errorf("after: %v", err)
				}
				f.put(clientPolicy("api.example", "*.shop.example"))
			})
		})
	})
}
