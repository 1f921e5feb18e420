package e2e_test

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/e2e/lab"
)

// TestAlwaysAllowedOnTheLink: what a link needs is always allowed to a workload on its link, and no way to a host beyond
// the node for who writes something else into it.
func TestAlwaysAllowedOnTheLink(t *testing.T) {
	forEachBackend(t, func(t *testing.T, backend string) {
		f := newFleet(t, "--iptables", backend)
		policy := clientPolicy()
		policy.Rules = []*namewardv1.Rule{{Action: namewardv1.Rule_ALLOW, Cidrs: []string{lab.RogueV4.String(), lab.RogueV6.String()}}}
		f.put(policy)
		for _, way := range []struct {
			name           string
			from, at       []string // what the client and the world listen on
			denied, passes net.Addr
			head           []byte
		}{
			{
				"DHCP to one host",
				[]string{"udp4", ":68"},
				[]string{"udp4", ":67"},
				&net.UDPAddr{IP: lab.ResolverV4.AsSlice(), Port: 67}, &net.UDPAddr{IP: lab.RogueV4.AsSlice(), Port: 67}, nil,
			},
			{
				"DHCPv6 to one host",
				[]string{"udp6", "[::]:546"},
				[]string{"udp6", "[::]:547"},
				&net.UDPAddr{IP: lab.ResolverV6.AsSlice(), Port: 547}, &net.UDPAddr{IP: lab.RogueV6.AsSlice(), Port: 547}, nil,
			},
			{
				"a neighbour solicitation to one host",
				[]string{"ip6:ipv6-icmp", "::"},
				[]string{"ip6:ipv6-icmp", "::"},
				&net.IPAddr{IP: lab.ResolverV6.AsSlice()}, &net.IPAddr{IP: lab.RogueV6.AsSlice()},
				[]byte{135, 0, 0, 0, 0, 0, 0, 0},
			},
			{
				"a report of listeners to one host",
				[]string{"ip6:ipv6-icmp", "::"},
				[]string{"ip6:ipv6-icmp", "::"},
				&net.IPAddr{IP: lab.ResolverV6.AsSlice()}, &net.IPAddr{IP: lab.RogueV6.AsSlice()},
				[]byte{143, 0, 0, 0, 0, 0, 0, 0},
			},
		} {
			t.Run(way.name, func(t *testing.T) {
				client, world := f.listen(t, f.Client, way.from), f.listen(t, f.World, way.at)
				for _, message := range []struct {
					to   net.Addr
					text string
				}{{way.denied, "denied"}, {way.passes, "passes"}} {
					_, err := client.WriteTo(append(bytes.Clone(way.head), message.text...), message.to)
					f.must(err)
				}
				// Both go the same way, one after the other.
				if heard := hearEither(t, world, "denied", "passes"); heard != "passes" {
					t.Errorf("the world heard what is %s", heard)
				}
			})
		}
		t.Run("DHCP to all on the link", func(t *testing.T) {
			client, node := f.listen(t, f.Client, []string{"udp4", ":68"}), f.listen(t, f.Node, []string{"udp4", ":67"})
			_, err := client.WriteTo([]byte("discover"), &net.UDPAddr{IP: net.IPv4bcast, Port: 67})
			f.must(err)
			hearEither(t, node, "discover")
		})
		t.Run("DHCPv6 to all on the link", func(t *testing.T) {
			group := net.UDPAddr{IP: netip.MustParseAddr("ff02::1:2").AsSlice(), Port: 547}
			var node *net.UDPConn
			f.must(f.Node.Do(func() error {
				link, err := net.InterfaceByName("client0")
				if err == nil {
					node, err = net.ListenMulticastUDP("udp6", link, &group)
				}
				return err
			}))
			defer node.Close() //nolint:errcheck // heard already
			group.Zone = "eth0"
			var client net.PacketConn
			f.must(f.Client.Do(func() (err error) {
				if client, err = net.ListenPacket("udp6", "[::]:546"); err == nil {
					_, err = client.WriteTo([]byte("solicit"), &group)
				}
				return err
			}))
			defer client.Close() //nolint:errcheck // all is sent
			hearEither(t, node, "solicit")
		})
	})
}

// listen opens a socket that takes packets; it goes with the test.
func (f *fleet) listen(t *testing.T, at *lab.Namespace, on []string) net.PacketConn {
	t.Helper()
	var conn net.PacketConn
	f.must(at.Do(func() (err error) {
		conn, err = net.ListenPacket(on[0], on[1])
		return err
	}))
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// hearEither waits for a packet that ends in one of the texts, and returns which.
func hearEither(t *testing.T, at net.PacketConn, texts ...string) string {
	t.Helper()
	if err := at.SetReadDeadline(time.Now().Add(lab.Patience)); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 1500)
	for {
		size, _, err := at.ReadFrom(buffer)
		if err != nil {
			t.Fatalf("hear any of %q: %v", texts, err)
		}
		for _, text := range texts {
			if bytes.HasSuffix(buffer[:size], []byte(text)) {
				return text
			}
		}
	}
}
