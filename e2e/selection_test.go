package e2e_test

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/e2e/lab"
)

// expectSelected fails the test unless a connection to evil.example, which no policy of the test allows, is
// refused exactly when a policy selects the namespace.
func (f *fleet) expectSelected(t *testing.T, resolver netip.Addr, from *lab.Namespace, selected bool) {
	t.Helper()
	addresses, err := from.Resolve(resolver, "evil.example")
	if err != nil {
		t.Fatal(err)
	}
	err = from.Connect(addresses[0], lab.ServicePort)
	if selected && !lab.Refused(err) || !selected && err != nil {
		t.Errorf("%s to %s: got %v, want it selected: %v", from.Name, addresses[0], err, selected)
	}
}

// TestSelection: which connections the fields of a workload select, and that all set fields must match.
func TestSelection(t *testing.T) {
	f := newFleet(t)
	v4, v6 := lab.ClientV4.String(), lab.ClientV6.String()
	for _, test := range []struct {
		fact      string
		workloads []*namewardv1.Workload
		// Which are selected: the client by IPv4, by IPv6, the node's own processes.
		client4, client6, node bool
	}{
		{"an empty list is the node's own processes", nil, false, false, true},
		{"any interface", []*namewardv1.Workload{{Interface: "+"}}, true, true, false},
		{"an interface by its name", []*namewardv1.Workload{{Interface: "client0"}}, true, true, false},
		{"an interface is its whole name", []*namewardv1.Workload{{Interface: "client"}}, false, false, false},
		{"interfaces by a beginning", []*namewardv1.Workload{{Interface: "client0+"}}, true, true, false},
		{"another interface", []*namewardv1.Workload{{Interface: "world+"}}, false, false, false},
		{"one family", []*namewardv1.Workload{{Cidrs: []string{v4}}}, true, false, false},
		{"both families", []*namewardv1.Workload{{Cidrs: []string{v4, "fd91:1::/64"}}}, true, true, false},
		{"every IPv6 address", []*namewardv1.Workload{{Cidrs: []string{"::/0"}}}, false, true, false},
		{"a source CIDR is no process of the node", []*namewardv1.Workload{{Cidrs: []string{"0.0.0.0/0", "::/0"}}}, true, true, false},
		{"all fields of one must match", []*namewardv1.Workload{{Interface: "client0", Cidrs: []string{v6}}}, false, true, false},
		{"and do not", []*namewardv1.Workload{{Interface: "world0", Cidrs: []string{v4, v6}}}, false, false, false},
		{"any of several", []*namewardv1.Workload{{Interface: "world0"}, {Cidrs: []string{v6}}, {Host: true}}, false, true, true},
	} {
		t.Run(test.fact, func(t *testing.T) {
			policy := clientPolicy("api.example")
			policy.Workloads = test.workloads
			f.put(policy)
			f.expectSelected(t, lab.ResolverV4, f.Client, test.client4)
			f.expectSelected(t, lab.ResolverV6, f.Client, test.client6)
			forEachFamily(t, func(t *testing.T, resolver netip.Addr) { f.expectSelected(t, resolver, f.Node, test.node) })
		})
	}
}

// TestNodeSelector: a policy is for the nodes that have all labels it names, an empty one for all.
func TestNodeSelector(t *testing.T) {
	f := newFleet(t)
	for _, test := range []struct {
		labels   map[string]string
		selected bool
	}{
		{map[string]string{"role": "lab"}, true},
		{map[string]string{"role": "db"}, false},
		{map[string]string{"role": "lab", "zone": "a"}, false},
		{nil, true},
	} {
		policy := clientPolicy("api.example")
		policy.NodeSelector = &namewardv1.NodeSelector{MatchLabels: test.labels}
		f.put(policy)
		f.expectSelected(t, lab.ResolverV4, f.Client, test.selected)
	}
}

// TestManyWorkloads: among thousands of sources each is told from the others.
func TestManyWorkloads(t *testing.T) {
	f := newFleet(t)
	many := func(prefixes ...string) []*namewardv1.Workload {
		var workloads []*namewardv1.Workload
		for i := range 5000 {
			workloads = append(workloads, &namewardv1.Workload{Cidrs: []string{
				fmt.Sprintf("10.%d.%d.0/24", 100+i>>8, i&255), fmt.Sprintf("fd92:%x::/64", i),
			}})
		}
		return append(workloads, &namewardv1.Workload{Cidrs: prefixes})
	}
	policy := clientPolicy("api.example")
	policy.Workloads = many("10.91.1.3", "fd91:1::3")
	f.put(policy)
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) { f.expectSelected(t, resolver, f.Client, false) })
	policy.Workloads = many("10.91.1.0/30", lab.ClientV6.String())
	f.put(policy)
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
		f.expectSelected(t, resolver, f.Client, true)
		f.expectOpen(t, resolver, "api.example")
	})
}

// TestServiceAddress: a connection is judged by the address that was asked for, whatever it becomes by DNAT.
func TestServiceAddress(t *testing.T) {
	forEachBackend(t, func(t *testing.T, backend string) {
		f := newFleet(t, "--iptables", backend)
		policy := clientPolicy("late.example")
		policy.Workloads = append(policy.Workloads, &namewardv1.Workload{Host: true})
		f.put(policy)
		forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
			service, backendAddress := f.learn(t, resolver, "late.example"), f.learn(t, resolver, "evil.example")
			for _, chain := range []string{"PREROUTING", "OUTPUT"} {
				program := map[bool]string{true: "iptables-", false: "ip6tables-"}[service.Is4()] + backend
				f.iptables(t, program, fmt.Sprintf("-t nat -A %s -p tcp -d %s -j DNAT --to-destination %s", chain, service, backendAddress))
			}
			for _, from := range []*lab.Namespace{f.Client, f.Node} {
				// The greeting is the backend's: it names its own address.
				if err := from.Connect(service, lab.ServicePort); err == nil || !strings.Contains(err.Error(), backendAddress.String()) {
					t.Errorf("%s to the service address: got %v, want the backend's greeting", from.Name, err)
				}
				if err := from.Connect(backendAddress, lab.ServicePort); !lab.Refused(err) {
					t.Errorf("%s to the backend itself: got %v, want refused", from.Name, err)
				}
			}
			f.put(&namewardv1.Policy{Name: policy.GetName(), Workloads: policy.GetWorkloads(), Rules: clientPolicy("evil.example").GetRules()})
			for _, from := range []*lab.Namespace{f.Client, f.Node} {
				if err := from.Connect(service, lab.ServicePort); !lab.Refused(err) {
					t.Errorf("%s to a service address with an allowed backend: got %v, want refused", from.Name, err)
				}
			}
			f.put(policy)
		})
	})
}

// TestRuleWithoutDestination: it matches every address, with or without a name, on its ports.
func TestRuleWithoutDestination(t *testing.T) {
	f := newFleet(t)
	policy := clientPolicy()
	policy.Rules = append([]*namewardv1.Rule{{Action: namewardv1.Rule_DENY, Domains: []string{"evil.example"}}}, policy.Rules...)
	f.put(policy)
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
		f.expectOpen(t, resolver, "api.example")
		f.expectRefused(t, resolver, "evil.example")
		unknown := map[bool]string{true: "198.18.210.1", false: "2001:db8:18:210::1"}[resolver.Is4()]
		if err := f.Connect(netip.MustParseAddr(unknown), lab.ServicePort); err != nil {
			t.Errorf("an address without a name: %v", err)
		}
		if err := f.Connect(netip.MustParseAddr(unknown), lab.OtherPort); !lab.Refused(err) {
			t.Errorf("another port: got %v, want refused", err)
		}
	})
}

// TestRuleOfSeveralDestinations: any of a rule's domains and CIDRs matches, each with the rule's ports.
func TestRuleOfSeveralDestinations(t *testing.T) {
	f := newFleet(t)
	policy := clientPolicy("api.example", "*.shop.example")
	policy.Rules[0].Cidrs = []string{"198.18.202.0/24", "2001:db8:18:202::1"}
	f.put(policy)
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
		for _, name := range []string{"api.example", "www.shop.example", "evil.example"} {
			f.expectOpen(t, resolver, name)
			if err := f.Connect(f.learn(t, resolver, name), lab.OtherPort); !lab.Refused(err) {
				t.Errorf("another port of %s: got %v, want refused", name, err)
			}
		}
		f.expectRefused(t, resolver, "late.example")
	})
}

// TestLetterCase: names are compared without case, as they are asked and as policies have them.
func TestLetterCase(t *testing.T) {
	f := newFleet(t)
	f.put(clientPolicy("Api.EXAMPLE.", "*.SHOP.example"))
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
		f.expectOpen(t, resolver, "aPI.exAMPle")
		f.expectOpen(t, resolver, "WWW.shop.EXAMPLE")
		f.expectRefused(t, resolver, "Evil.Example")
	})
}

// TestDHCPv6: a DHCP client is told by both of its ports, and passes whatever the policies say.
func TestDHCPv6(t *testing.T) {
	f := newFleet(t)
	policy := clientPolicy()
	policy.Rules, policy.Workloads = nil, []*namewardv1.Workload{{Host: true}}
	f.put(policy)
	var server net.PacketConn
	f.must(f.World.Do(func() (err error) {
		server, err = net.ListenPacket("udp6", "[::]:547")
		return err
	}))
	defer server.Close() //nolint:errcheck // nothing is buffered
	for from, passes := range map[int]bool{546: true, 5460: false} {
		var client net.PacketConn
		f.must(f.Node.Do(func() (err error) {
			client, err = net.ListenPacket("udp6", fmt.Sprintf("[::]:%d", from))
			return err
		}))
		// Of a packet that is denied as it is sent, the kernel may say so at once.
		_, err := client.WriteTo([]byte("solicit"), &net.UDPAddr{IP: lab.ResolverV6.AsSlice(), Port: 547})
		if err == nil {
			f.must(server.SetReadDeadline(time.Now().Add(map[bool]time.Duration{true: 5 * time.Second, false: 200 * time.Millisecond}[passes])))
			_, _, err = server.ReadFrom(make([]byte, 64))
		}
		if passed := err == nil; passed != passes {
			t.Errorf("from port %d: %v, want it to pass: %v", from, err, passes)
		}
		answer, err := newExplainer(f).local.ExplainConnection(t.Context(), &namewardv1.ExplainConnectionRequest{
			Destination: lab.ResolverV6.String(), Protocol: namewardv1.Protocol_UDP, Port: 547, SourcePort: uint32(from),
		})
		if err != nil || (answer.GetVerdict() == namewardv1.Verdict_ALLOW) != passes {
			t.Errorf("from port %d: explained as %v, %v", from, answer, err)
		}
		f.must(client.Close())
	}
}
