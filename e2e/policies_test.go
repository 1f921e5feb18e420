package e2e_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/e2e/lab"
)

// TestOrder: rules are evaluated by priority, then by the policies' names, then by position.
func TestOrder(t *testing.T) {
	f := newFleet(t)
	verdict := func(name string, priority int32, action namewardv1.Rule_Action) *namewardv1.Policy {
		policy := clientPolicy("*.shop.example")
		policy.Name, policy.Priority, policy.Rules[0].Action = name, priority, action
		return policy
	}
	f.put(verdict("policies/b", 10, namewardv1.Rule_DENY))
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) { f.expectRefused(t, resolver, "www.shop.example") })
	f.put(verdict("policies/z", 9, namewardv1.Rule_ALLOW))
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) { f.expectOpen(t, resolver, "www.shop.example") })
	f.put(verdict("policies/y", 9, namewardv1.Rule_DENY))
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) { f.expectRefused(t, resolver, "www.shop.example") })
	f.put(verdict("policies/y", 11, namewardv1.Rule_DENY))
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) { f.expectOpen(t, resolver, "www.shop.example") })
}

// TestPortsAndProtocols: a rule with ports matches those alone, of that protocol alone.
func TestPortsAndProtocols(t *testing.T) {
	f := newFleet(t)
	port := func(protocol namewardv1.Protocol, first, last uint32) *namewardv1.Port {
		return &namewardv1.Port{Protocol: protocol, Port: first, EndPort: last}
	}
	policy := clientPolicy("api.example")
	policy.Rules = nil
	for domain, ports := range map[string][]*namewardv1.Port{
		"api.example":      {port(namewardv1.Protocol_UDP, lab.ServicePort, 0)},
		"late.example":     {port(namewardv1.Protocol_TCP, 8000, 9000)},
		"evil.example":     {port(namewardv1.Protocol_ICMP, 0, 0)},
		"shop.example":     {port(namewardv1.Protocol_SCTP, 1000, 2000)},
		"www.shop.example": {port(namewardv1.Protocol_TCP, 0, 0), port(namewardv1.Protocol_UDP, 0, 0)},
	} {
		policy.Rules = append(policy.Rules, &namewardv1.Rule{Action: namewardv1.Rule_ALLOW, Domains: []string{domain}, Ports: ports})
	}
	f.put(policy)
	type attempt struct {
		name  string
		way   string
		port  uint16
		opens bool
	}
	ways := map[string]func(netip.Addr, uint16) error{
		"TCP": f.Connect, "UDP": f.Client.Exchange, "SCTP": f.InitSCTP,
		"ICMP": func(address netip.Addr, _ uint16) error { return f.Client.Ping(address) },
	}
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
		for _, a := range []attempt{
			{"api.example", "UDP", lab.ServicePort, true},
			{"api.example", "UDP", lab.OtherPort, false},
			{"api.example", "TCP", lab.ServicePort, false},
			{"api.example", "ICMP", 0, false},
			{"late.example", "TCP", lab.OtherPort, true},
			{"late.example", "TCP", lab.ServicePort, false},
			{"late.example", "UDP", lab.OtherPort, false},
			{"evil.example", "ICMP", 0, true},
			{"evil.example", "TCP", lab.ServicePort, false},
			{"shop.example", "SCTP", 1000, true},
			{"shop.example", "SCTP", 2000, true},
			{"shop.example", "SCTP", 2001, false},
			{"shop.example", "TCP", lab.ServicePort, false},
			{"www.shop.example", "TCP", lab.OtherPort, true},
			{"www.shop.example", "UDP", lab.ServicePort, true},
			{"www.shop.example", "ICMP", 0, false},
		} {
			err := ways[a.way](f.learn(t, resolver, a.name), a.port)
			if opened := err == nil; opened != a.opens {
				t.Errorf("%s port %d of %s: got %v, want open: %v", a.way, a.port, a.name, err, a.opens)
			}
			if a.way != "SCTP" && !a.opens && !lab.Refused(err) {
				t.Errorf("%s port %d of %s: got %v, want refused at once", a.way, a.port, a.name, err)
			}
		}
	})
}

// TestSharedAddress: an address is open by any of its names, and closed by any that a rule before denies.
func TestSharedAddress(t *testing.T) {
	f := newFleet(t)
	f.put(clientPolicy("one.shared.example"))
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
		f.expectRefused(t, resolver, "two.shared.example")
		f.expectOpen(t, resolver, "one.shared.example")
		f.expectOpen(t, resolver, "two.shared.example")
	})
	policy := clientPolicy("one.shared.example")
	policy.Rules = append([]*namewardv1.Rule{{Action: namewardv1.Rule_DENY, Domains: []string{"two.shared.example"}}}, policy.Rules...)
	f.put(policy)
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) { f.expectRefused(t, resolver, "one.shared.example") })
}

// TestConnectionsToTheWorkload: what others open to a workload is not judged, nor are its replies.
func TestConnectionsToTheWorkload(t *testing.T) {
	f := newFleet(t)
	policy := clientPolicy("api.example")
	policy.Workloads = append(policy.Workloads, &namewardv1.Workload{Host: true})
	f.put(policy)
	for _, side := range []struct {
		namespace *lab.Namespace
		addresses []netip.Addr
	}{{f.Client, []netip.Addr{lab.ClientV4, lab.ClientV6}}, {f.Node, []netip.Addr{lab.NodeV4, lab.NodeV6}}} {
		var listener net.Listener
		f.must(side.namespace.Do(func() (err error) {
			listener, err = net.Listen("tcp", "[::]:7000")
			return err
		}))
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				_, _ = conn.Write([]byte("hello from " + conn.LocalAddr().String() + "\n"))
				_ = conn.Close()
			}
		}()
		for _, address := range side.addresses {
			if err := f.World.Connect(address, 7000); err != nil {
				t.Errorf("from the world to %s: %v", address, err)
			}
		}
		f.must(listener.Close())
	}
}

// TestAlwaysAllowed: a policy without a rule stops neither DNS to the trusted resolvers, nor neighbour
// discovery, nor DHCP, nor loopback, nor the agent's stream to its server.
func TestAlwaysAllowed(t *testing.T) {
	f := newFleet(t)
	policy := clientPolicy()
	policy.Rules = nil
	policy.Workloads = append(policy.Workloads, &namewardv1.Workload{Host: true})
	f.put(policy)
	for _, namespace := range []*lab.Namespace{f.Client, f.Node} {
		for _, resolver := range f.Resolvers() {
			if out, err := f.command(t.Context(), "ip", "-all", "neigh", "flush", "all"); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			addresses, err := namespace.Resolve(resolver, "api.example")
			f.must(err)
			if err := namespace.Connect(addresses[0], lab.ServicePort); !lab.Refused(err) {
				t.Errorf("%s: connect: got %v, want refused", namespace.Name, err)
			}
			conn, err := namespace.Dial("tcp", netip.AddrPortFrom(resolver, 53).String(), time.Second)
			if err != nil {
				t.Errorf("%s: DNS over TCP to %s: %v", namespace.Name, resolver, err)
				continue
			}
			f.must(conn.Close())
		}
	}
	t.Run("DHCP", func(t *testing.T) { f.expectDHCP(t) })
	t.Run("loopback", func(t *testing.T) {
		conn, err := f.Node.Dial("tcp", lab.ServerAddress, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		f.must(conn.Close())
	})
	// The server still hears of the node, and the node of the server.
	f.put(clientPolicy("api.example"))
}

// expectDHCP sends a datagram as a DHCP client of the node would, and hears it in the world.
func (f *fleet) expectDHCP(t *testing.T) {
	t.Helper()
	var client, server net.PacketConn
	f.must(f.Node.Do(func() (err error) {
		client, err = net.ListenPacket("udp4", ":68")
		return err
	}))
	defer client.Close() //nolint:errcheck // nothing is buffered
	f.must(f.World.Do(func() (err error) {
		server, err = net.ListenPacket("udp4", ":67")
		return err
	}))
	defer server.Close() //nolint:errcheck // nothing is buffered
	f.must(server.SetDeadline(time.Now().Add(time.Second)))
	_, err := client.WriteTo([]byte("discover"), &net.UDPAddr{IP: lab.ResolverV4.AsSlice(), Port: 67})
	f.must(err)
	if _, _, err := server.ReadFrom(make([]byte, 64)); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the datagram of a DHCP client did not pass")
	}
}
