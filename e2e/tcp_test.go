package e2e_test

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/miekg/dns"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/e2e/lab"
)

// addressesOf packs a question for the addresses of a name, of the family of a resolver.
func (f *fleet) addressesOf(name string, id uint16, resolver netip.Addr) []byte {
	f.t.Helper()
	kind := dns.TypeA
	if resolver.Is6() {
		kind = dns.TypeAAAA
	}
	query := new(dns.Msg).SetQuestion(dns.Fqdn(name), kind)
	query.Id = id
	wire, err := query.Pack()
	f.must(err)
	return wire
}

// address returns the first address that an answer says.
func (f *fleet) address(message []byte) netip.Addr {
	f.t.Helper()
	var answer dns.Msg
	f.must(answer.Unpack(message))
	for _, record := range answer.Answer {
		switch record := record.(type) {
		case *dns.A:
			return netip.AddrFrom4([4]byte(record.A.To4()))
		case *dns.AAAA:
			return netip.AddrFrom16([16]byte(record.AAAA))
		}
	}
	f.t.Fatalf("no address in %v", &answer)
	return netip.Addr{}
}

// openTCP asks over TCP for names in one go, and connects to each as soon as its answer is heard.
func (f *fleet) openTCP(t *testing.T, from *lab.Namespace, resolver netip.Addr, names ...string) {
	t.Helper()
	stream, err := from.DialDNS(resolver)
	f.must(err)
	defer stream.Close() //nolint:errcheck // all is heard
	var queries [][]byte
	for i, name := range names {
		queries = append(queries, f.addressesOf(name, uint16(i), resolver))
	}
	_, err = stream.Write(lab.Framed(queries...))
	f.must(err)
	for range names {
		message, err := stream.Hear()
		f.must(err)
		if err := from.Connect(f.address(message), lab.ServicePort); err != nil {
			t.Errorf("connect to %s: %v", f.address(message), err)
		}
	}
}

// TestAnswersOverTCP: what real servers answer over TCP opens names as what they answer over UDP does,
// asked one after the other or in one go, from behind the node and from the node, at a resolver of the
// world, behind DNAT, and on the node.
func TestAnswersOverTCP(t *testing.T) {
	forEachBackend(t, func(t *testing.T, backend string) {
		service := netip.MustParseAddr("10.91.9.53")
		f := newFleet(t, "--iptables", backend, "--trusted-resolver", service.String(),
			"--trusted-resolver", lab.NodeV4.String(), "--trusted-resolver", lab.ResolverV4.String(), "--trusted-resolver", lab.ResolverV6.String())
		policy := clientPolicy("*.fresh.example", "api.example")
		policy.Workloads = append(policy.Workloads, &namewardv1.Workload{Host: true})
		f.put(policy)
		f.must(f.StartDnsmasq(t.Context(), f.Node, lab.NodeV4))
		f.iptables(t, "iptables-"+backend, "-t nat -A PREROUTING -p tcp --dport 53 -d "+service.String()+" -j DNAT --to-destination "+lab.RogueV4.String())
		next := 0
		names := func(count int) (names []string) {
			for range count {
				names = append(names, lab.FreshName(next))
				next++
			}
			return names
		}
		for name, resolver := range map[string]netip.Addr{"ipv4": lab.ResolverV4, "ipv6": lab.ResolverV6, "behind DNAT": service, "on the node": lab.NodeV4} {
			t.Run(name, func(t *testing.T) {
				f.openTCP(t, f.Client, resolver, names(1)...)
				f.openTCP(t, f.Client, resolver, names(20)...)
				if resolver == service {
					return // redirected on its way through the node alone
				}
				f.openTCP(t, f.Node, resolver, names(1)...)
				f.openTCP(t, f.Node, resolver, names(20)...)
			})
		}
		f.counters(func(c map[string]uint64) bool {
			return c["dns_responses_learned"] >= uint64(next) && c["dns_responses_unfollowed"] == 0 && c["dns_segments_held_back"] == 0
		})
	})
}

// hearStream starts a resolver over TCP, and connects to it from the client; it returns both sides.
func (f *fleet) hearStream(listener net.Listener, resolver netip.Addr) (client, server lab.Stream) {
	f.t.Helper()
	client, err := f.Client.DialDNS(resolver)
	f.must(err)
	f.t.Cleanup(func() { _ = client.Close() })
	conn, err := listener.Accept()
	f.must(err)
	f.t.Cleanup(func() { _ = conn.Close() })
	return client, lab.Stream{Conn: conn}
}

// TestAnswersInManySegments: an answer is learned when the application has its last byte, and not before,
// in whatever pieces it comes.
func TestAnswersInManySegments(t *testing.T) {
	f := newFleet(t, "--trusted-resolver", scriptedResolvers[0].String(), "--trusted-resolver", scriptedResolvers[1].String())
	f.put(clientPolicy("api.example"))
	f.must(f.SegmentAnswers(t.Context()))
	for i, resolver := range scriptedResolvers {
		listener, err := f.ListenDNS(t.Context(), resolver)
		f.must(err)
		base := netip.MustParseAddr([]string{"198.19.0.0", "2001:db8:18:190::"}[i])
		t.Run(resolver.String()+" byte by byte", func(t *testing.T) {
			client, server := f.hearStream(listener, resolver)
			query := f.addressesOf("api.example", 7, resolver)
			for _, b := range lab.Framed(query) {
				_, err := client.Write([]byte{b})
				f.must(err)
				_, err = server.HearBytes(1)
				f.must(err)
			}
			var asked dns.Msg
			f.must(asked.Unpack(query))
			address := nth(base, 1)
			wire, err := answer(&asked, address).Pack()
			f.must(err)
			stream := lab.Framed(wire)
			for at, b := range stream {
				if err := f.Connect(address, lab.ServicePort); !lab.Refused(err) {
					t.Fatalf("connect after %d of %d bytes: %v", at, len(stream), err)
				}
				_, err := server.Write([]byte{b})
				f.must(err)
				_, err = client.HearBytes(1)
				f.must(err)
			}
			f.must(f.Connect(address, lab.ServicePort))
		})
		t.Run(resolver.String()+" 65,535 bytes with a thousand addresses", func(t *testing.T) {
			client, server := f.hearStream(listener, resolver)
			query := f.addressesOf("api.example", 8, resolver)
			_, err := client.Write(lab.Framed(query))
			f.must(err)
			_, err = server.Hear()
			f.must(err)
			wire := f.largest(query, nth(base, 100))
			_, err = server.Write(lab.Framed(wire))
			f.must(err)
			heard, err := client.Hear()
			f.must(err)
			if len(heard) != 65535 {
				t.Errorf("heard %d bytes", len(heard))
			}
			for _, n := range []int{0, 1, 500, 999} {
				if err := f.Connect(nth(base, 100+n), lab.ServicePort); err != nil {
					t.Errorf("connect to address %d: %v", n, err)
				}
			}
		})
	}
}

// largest makes an answer of 65,535 bytes with a thousand addresses.
func (f *fleet) largest(query []byte, first netip.Addr) []byte {
	f.t.Helper()
	var asked dns.Msg
	f.must(asked.Unpack(query))
	message := answer(&asked, first)
	message.Compress = true
	for n := 1; n < 1000; n++ {
		message.Answer = append(message.Answer, answer(&asked, nth(first, n)).Answer...)
	}
	return f.padTo(message, 65535)
}

// TestAnswersOverLossyTCP: what is lost and sent again, and comes in another order, is learned too, before
// the application has it.
func TestAnswersOverLossyTCP(t *testing.T) {
	f := newFleet(t, "--trusted-resolver", scriptedResolvers[0].String(), "--trusted-resolver", scriptedResolvers[1].String())
	f.put(clientPolicy("api.example"))
	f.must(f.SegmentAnswers(t.Context()))
	const share, answers = 0.2, 12
	f.must(f.LoseAnswers(t.Context(), share))
	for i, resolver := range scriptedResolvers {
		t.Run(resolver.String(), func(t *testing.T) {
			listener, err := f.ListenDNS(t.Context(), resolver)
			f.must(err)
			client, server := f.hearStream(listener, resolver)
			base := netip.MustParseAddr([]string{"198.19.100.0", "2001:db8:18:191::"}[i])
			var stream []byte
			for n := range answers {
				query := f.addressesOf("api.example", uint16(n), resolver)
				_, err := client.Write(lab.Framed(query))
				f.must(err)
				_, err = server.Hear()
				f.must(err)
				var asked dns.Msg
				f.must(asked.Unpack(query))
				message := answer(&asked, nth(base, n))
				stream = append(stream, lab.Framed(f.padTo(message, 4000+n*500))...)
			}
			_, err = server.Write(stream)
			f.must(err)
			for n := range answers {
				_, err := client.Hear()
				f.must(err)
				if err := f.Connect(nth(base, n), lab.ServicePort); err != nil {
					t.Errorf("connect to the address of answer %d: %v", n, err)
				}
			}
		})
	}
	f.counters(func(c map[string]uint64) bool {
		return c["dns_responses_learned"] == 2*answers && c["dns_responses_unfollowed"] == 0
	})
}

// TestRefusedQuestionOverTCP: the connection over which a refused question is asked is reset, in whatever
// segments it comes; the question never reaches the resolver.
func TestRefusedQuestionOverTCP(t *testing.T) {
	forEachBackend(t, func(t *testing.T, backend string) {
		f := newFleet(t, "--iptables", backend, "--trusted-resolver", scriptedResolvers[0].String(), "--trusted-resolver", scriptedResolvers[1].String())
		policy := clientPolicy("api.example")
		policy.Workloads = append(policy.Workloads, &namewardv1.Workload{Host: true})
		policy.Rules = append([]*namewardv1.Rule{{
			Action: namewardv1.Rule_DENY, Domains: []string{"*.shop.example"}, QueryAction: namewardv1.Rule_REFUSE,
		}}, policy.Rules...)
		f.put(policy)
		// Rules of others that write the whole mark come behind ours.
		for _, program := range []string{"iptables-", "ip6tables-"} {
			for _, rule := range []string{"FORWARD -j MARK --set-mark 7", "OUTPUT -j MARK --set-mark 7"} {
				f.iptables(t, program+backend, "-t mangle -A "+rule)
			}
		}
		for _, resolver := range scriptedResolvers {
			listener, err := f.ListenDNS(t.Context(), resolver)
			f.must(err)
			for _, from := range []*lab.Namespace{f.Client, f.Node} {
				for _, split := range []int{0, 2, 17} {
					client, err := from.DialDNS(resolver)
					f.must(err)
					conn, err := listener.Accept()
					f.must(err)
					server := lab.Stream{Conn: conn}
					good := f.addressesOf("api.example", 1, resolver)
					_, err = client.Write(lab.Framed(good))
					f.must(err)
					_, err = server.Hear()
					f.must(err)
					bad := lab.Framed(f.addressesOf("tracker.shop.example", 2, resolver))
					_, err = client.Write(bad[:split])
					f.must(err)
					if split > 0 {
						_, err = server.HearBytes(split)
						f.must(err)
					}
					_, _ = client.Write(bad[split:])
					if _, err := client.Hear(); !errors.Is(err, syscall.ECONNRESET) {
						t.Errorf("%s asks %s in two pieces at %d: %v, want a reset", from.Name, resolver, split, err)
					}
					f.must(errors.Join(client.Close(), server.Close()))
				}
			}
		}
		f.counters(func(c map[string]uint64) bool { return c["dns_queries_refused"] >= 12 })
	})
}

// TestTruncatedAnswer: what does not fit over UDP is not learned, but counted; the question that follows
// over TCP is answered whole.
func TestTruncatedAnswer(t *testing.T) {
	f := newFleet(t)
	f.put(clientPolicy("large.example"))
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
		query := f.addressesOf("large.example", 3, resolver)
		asker, err := f.NewAsker(f.Client, map[bool]netip.Addr{true: lab.ClientV4, false: lab.ClientV6}[resolver.Is4()])
		f.must(err)
		f.must(asker.Ask(netip.AddrPortFrom(resolver, 53), query))
		heard, err := asker.Hear()
		f.must(err)
		var short dns.Msg
		f.must(short.Unpack(heard))
		if !short.Truncated {
			t.Fatalf("answer of %d bytes is whole", len(heard))
		}
		f.openTCP(t, f.Client, resolver, "large.example")
	})
	f.counters(func(c map[string]uint64) bool { return c["dns_responses_truncated"] == 2 })
}
