package e2e_test

import (
	"context"
	"net/netip"
	"testing"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/e2e/lab"
)

// TestResolverBehindDNAT: a resolver is trusted under the address that the client asks, as that of a
// Kubernetes service is, whatever server answers behind it.
func TestResolverBehindDNAT(t *testing.T) {
	forEachBackend(t, func(t *testing.T, backend string) {
		services := map[string]netip.Addr{"iptables": netip.MustParseAddr("10.96.0.10"), "ip6tables": netip.MustParseAddr("fd96::10")}
		f := newFleet(t, "--iptables", backend, "--trusted-resolver", services["iptables"].String(), "--trusted-resolver", services["ip6tables"].String())
		for program, service := range services {
			to := map[string]netip.Addr{"iptables": lab.RogueV4, "ip6tables": lab.RogueV6}[program]
			f.iptables(t, program+"-"+backend, "-t nat -A PREROUTING -p udp --dport 53 -d "+service.String()+" -j DNAT --to-destination "+to.String())
		}
		f.put(clientPolicy("*.fresh.example"))
		for i, service := range []netip.Addr{services["iptables"], services["ip6tables"]} {
			f.expectOpen(t, service, lab.FreshName(i))
			f.expectRefused(t, service, "evil.example")
		}
	})
}

// TestResolverPrograms: what dnsmasq and unbound answer is learned, on the node and elsewhere: addresses,
// chains, and aliases of names that DNAME makes.
func TestResolverPrograms(t *testing.T) {
	elsewhere := netip.MustParseAddr("10.91.2.8")
	for _, program := range []string{"dnsmasq", "unbound"} {
		for place, address := range map[string]netip.Addr{"on the node": lab.NodeV4, "elsewhere": elsewhere} {
			t.Run(program+" "+place, func(t *testing.T) {
				f := newFleet(t, "--trusted-resolver", address.String())
				at := f.Node
				if address == elsewhere {
					at = f.World
					f.must(f.AddWorldAddress(t.Context(), address))
				}
				start := map[string]func(context.Context, *lab.Namespace, ...netip.Addr) error{"dnsmasq": f.StartDnsmasq, "unbound": f.StartUnbound}[program]
				f.must(start(t.Context(), at, address))
				policy := clientPolicy("*.fresh.example", "pool.cdn.example", "www.alias.example", "*.wild.example")
				policy.Workloads = append(policy.Workloads, &namewardv1.Workload{Host: true})
				f.put(policy)
				for _, from := range []*lab.Namespace{f.Client, f.Node} {
					for _, name := range []string{lab.FreshName(7), "www.shop.example", "www.alias.example", "any.wild.example"} {
						addresses, err := from.Resolve(address, name)
						if err != nil {
							t.Fatalf("resolve %s: %v", name, err)
						}
						if err := from.Connect(addresses[0], lab.ServicePort); err != nil {
							t.Errorf("connect to %s (%s) right after its answer: %v", name, addresses[0], err)
						}
					}
					addresses, err := from.Resolve(address, "evil.example")
					f.must(err)
					if err := from.Connect(addresses[0], lab.ServicePort); !lab.Refused(err) {
						t.Errorf("connect to evil.example: got %v, want refused", err)
					}
				}
				counters := f.counters(func(c map[string]uint64) bool { return c["dns_responses_learned"] >= 8 })
				for _, reason := range []string{"dns_responses_no_query", "dns_responses_duplicate", "dns_responses_malformed"} {
					if counters[reason] != 0 {
						t.Errorf("%s: got %d, want none", reason, counters[reason])
					}
				}
			})
		}
	}
}

// TestResolverOnTheNode: the resolver runs on the node, as systemd-resolved and NodeLocal DNSCache do. The
// node's own processes ask it over loopback, the client from outside.
func TestResolverOnTheNode(t *testing.T) {
	forEachBackend(t, func(t *testing.T, backend string) {
		loopback := netip.MustParseAddr("127.0.0.53")
		f := newFleet(t, "--iptables", backend, "--trusted-resolver", loopback.String(), "--trusted-resolver", lab.NodeV4.String())
		f.must(f.StartForwarder(t.Context(), loopback, lab.NodeV4))
		policy := clientPolicy("*.fresh.example")
		policy.Workloads = append(policy.Workloads, &namewardv1.Workload{Host: true})
		f.put(policy)
		f.expectOpen(t, lab.NodeV4, lab.FreshName(1))
		f.expectRefused(t, lab.NodeV4, "evil.example")
		for i := range 100 {
			addresses, err := f.Node.Resolve(loopback, lab.FreshName(2+i))
			if err != nil {
				t.Fatal(err)
			}
			if err := f.Node.Connect(addresses[0], lab.ServicePort); err != nil {
				t.Errorf("connect to %s right after its answer: %v", lab.FreshName(2+i), err)
			}
		}
		addresses, err := f.Node.Resolve(loopback, "evil.example")
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Node.Connect(addresses[0], lab.ServicePort); !lab.Refused(err) {
			t.Errorf("connect from the node to evil.example: got %v, want refused", err)
		}
		counters := f.counters(func(c map[string]uint64) bool { return c["dns_responses_learned"] >= 100 })
		for _, reason := range []string{"dns_responses_no_query", "dns_responses_duplicate", "dns_responses_malformed"} {
			if counters[reason] != 0 {
				t.Errorf("%s: got %d, want none", reason, counters[reason])
			}
		}
	})
}
