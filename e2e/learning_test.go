package e2e_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/e2e/lab"
)

// nth gives the n-th address of a network of services.
func nth(network netip.Addr, n int) netip.Addr {
	bytes := network.AsSlice()
	low := bytes[len(bytes)-2:]
	binary.BigEndian.PutUint16(low, binary.BigEndian.Uint16(low)+uint16(n))
	address, _ := netip.AddrFromSlice(bytes)
	return address
}

// bulk gives a network of services for one test, of a stage's family.
func (s *stage) bulk(n byte) netip.Addr {
	if s.asker.Address.Addr().Is4() {
		return netip.AddrFrom4([4]byte{198, 19, n * 16, 0})
	}
	six := lab.ServicesV6.Addr().As16()
	six[7] = n
	return netip.AddrFrom16(six)
}

// hearAnswer has the resolver answer, by whatever way, and the asker hear it as it is.
func (s *stage) hearAnswer(t *testing.T, from *lab.Asker, message []byte, say func() error) {
	t.Helper()
	s.must(say())
	if heard, err := from.Hear(); err != nil || !bytes.Equal(heard, message) {
		t.Fatalf("heard %d bytes, %v; want %d", len(heard), err, len(message))
	}
}

// askers are a client behind the node and a process on it, which ask one and the same resolver.
func (s *stage) askers(t *testing.T) map[*lab.Namespace]*lab.Asker {
	t.Helper()
	node := netip.MustParseAddr("10.91.2.1")
	if s.asker.Address.Addr().Is6() {
		node = netip.MustParseAddr("fd91:2::1")
	}
	own, err := s.NewAsker(s.Node, node)
	s.must(err)
	return map[*lab.Namespace]*lab.Asker{s.Client: s.asker, s.Node: own}
}

// TestAnswersInFragments: what does not fit into a packet is learned from its fragments, in any order,
// before the asker has the last byte, on its way through the node and to the node itself.
func TestAnswersInFragments(t *testing.T) {
	f, stages := newStages(t)
	policy := clientPolicy("api.example")
	policy.Workloads = append(policy.Workloads, &namewardv1.Workload{Host: true})
	f.put(policy)
	for _, s := range stages {
		network := byte(0)
		for namespace, asker := range s.askers(t) {
			s.asker = asker
			expect := func(t *testing.T, address netip.Addr, open bool) {
				t.Helper()
				if err := namespace.Connect(address, lab.ServicePort); open && err != nil || !open && !lab.Refused(err) {
					t.Errorf("connect to %s: got %v, want it open: %v", address, err, open)
				}
			}
			network++
			t.Run("a thousand addresses for "+asker.Address.Addr().String(), func(t *testing.T) {
				const limit = 1000
				query, first := s.ask(), s.bulk(network)
				message := answer(query, nth(first, 1))
				message.Compress = true
				for n := 2; n <= limit+1; n++ {
					message.Answer = append(message.Answer, answer(query, nth(first, n)).Answer...)
				}
				wire := s.pack(message)
				s.hearAnswer(t, asker, wire, func() error { return s.resolver.Say(asker.Address, wire) })
				for _, n := range []int{1, 2, limit / 2, limit} {
					expect(t, nth(first, n), true)
				}
				expect(t, nth(first, limit+1), false)
			})
			t.Run("65,507 bytes for "+asker.Address.Addr().String(), func(t *testing.T) {
				query, first := s.ask(), s.bulk(network+8)
				wire := s.padded(query, nth(first, 1), nth(first, 2), 65507)
				s.hearAnswer(t, asker, wire, func() error { return s.resolver.Say(asker.Address, wire) })
				expect(t, nth(first, 1), true)
				expect(t, nth(first, 2), true)
				expect(t, nth(first, 3), false)
			})
			t.Run("the last fragment first for "+asker.Address.Addr().String(), func(t *testing.T) {
				query, first := s.ask(), s.bulk(network+4)
				wire := s.padded(query, nth(first, 1), nth(first, 2), 4000)
				s.hearAnswer(t, asker, wire, func() error {
					return s.World.SpoofFragments(s.resolver.Address, asker.Address, wire, 1000)
				})
				expect(t, nth(first, 1), true)
				expect(t, nth(first, 2), true)
			})
		}
	}
	f.counters(func(c map[string]uint64) bool {
		return c["addresses_over_limit"] == 4 && c["dns_responses_learned"] >= 12
	})
}

// padded makes an answer of so many bytes, with an address at either end.
func (s *stage) padded(query *dns.Msg, first, last netip.Addr, size int) []byte {
	s.t.Helper()
	message := answer(query, first)
	message.Answer = append(message.Answer, answer(query, last).Answer[0])
	return s.padTo(message, size)
}

// padTo packs an answer with a record that fills it up to so many bytes, behind its first one.
func (f *fleet) padTo(message *dns.Msg, size int) []byte {
	f.t.Helper()
	message.Compress = true
	padding := &dns.RFC3597{Hdr: dns.RR_Header{Name: message.Question[0].Name, Rrtype: 65280, Class: dns.ClassINET}}
	message.Answer = slices.Insert(message.Answer, 1, dns.RR(padding))
	wire, err := message.Pack()
	f.must(err)
	padding.Rdata = strings.Repeat("00", size-len(wire))
	wire, err = message.Pack()
	f.must(err)
	if len(wire) != size {
		f.t.Fatalf("an answer of %d bytes, want %d", len(wire), size)
	}
	return wire
}

// TestChainsInAnyOrder: an address belongs to every name on the chain, wherever its records are.
func TestChainsInAnyOrder(t *testing.T) {
	_, stages := newStages(t)
	for _, s := range stages {
		t.Run(s.asker.Address.Addr().String(), func(t *testing.T) {
			names := []string{"www.example.", "a.cdn.example.", "b.cdn.example.", "api.example."} // the last is allowed
			for _, order := range [][]int{{0, 1, 2, 3}, {3, 2, 1, 0}, {3, 1, 0, 2}, {2, 0, 3, 1}} {
				query := s.ask(func(m *dns.Msg) { m.Question[0].Name = names[0] })
				address := s.next()
				records := answer(query, address).Answer
				records[0].Header().Name = names[3]
				for i, target := range names[1:] {
					header := dns.RR_Header{Name: names[i], Rrtype: dns.TypeCNAME, Class: dns.ClassINET, Ttl: 60}
					records = append(records, &dns.CNAME{Hdr: header, Target: target})
				}
				message := new(dns.Msg).SetReply(query)
				message.Compress = true
				for _, i := range order {
					message.Answer = append(message.Answer, records[i])
				}
				wire := s.pack(message)
				s.hearAnswer(t, s.asker, wire, func() error { return s.resolver.Say(s.asker.Address, wire) })
				if err := s.Connect(address, lab.ServicePort); err != nil {
					t.Errorf("order %v: connect to %s right after its answer: %v", order, address, err)
				}
			}
		})
	}
}

// TestUnusualRecords: what a real server says with DNAME, HTTPS and SVCB records, and of addresses that no
// name may stand for.
func TestUnusualRecords(t *testing.T) {
	f := newFleet(t)
	f.put(clientPolicy("*.alias.example", "h3.example", "_api.h3.example", "rebind.example"))
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
		f.expectOpen(t, resolver, "www.alias.example") // an alias to edge.cdn, of a name that DNAME makes
		f.expectRefused(t, resolver, "evil.example")
		for name, kind := range map[string]uint16{"h3.example.": dns.TypeHTTPS, "_api.h3.example.": dns.TypeSVCB} {
			hints := f.hints(t, resolver, name, kind)
			if len(hints) != 2 {
				t.Fatalf("%s: hints %v", name, hints)
			}
			for _, address := range hints {
				if err := f.Connect(address, lab.ServicePort); err != nil {
					t.Errorf("connect to %s, a hint of %s: %v", address, name, err)
				}
			}
		}
		addresses, err := f.Resolve(resolver, "rebind.example")
		f.must(err)
		if len(addresses) != 6 {
			t.Errorf("rebind.example: the client heard %v", addresses)
		}
	})
	if err := f.Connect(netip.MustParseAddr("169.254.169.254"), lab.ServicePort); !lab.Refused(err) {
		t.Errorf("connect to the cloud's metadata: got %v, want refused", err)
	}
	f.counters(func(c map[string]uint64) bool { return c["addresses_special"] == 10 })
	var known []string
	for _, mapping := range f.mappings("rebind.example") {
		known = append(known, mapping.GetAddress())
	}
	slices.Sort(known)
	if want := []string{"198.18.209.1", "2001:db8:18:209::1"}; !slices.Equal(known, want) {
		t.Errorf("rebind.example: known are %v, want %v", known, want)
	}
}

// hints asks for the service bindings of a name, and returns the addresses in them.
func (f *fleet) hints(t *testing.T, resolver netip.Addr, name string, kind uint16) (hints []netip.Addr) {
	t.Helper()
	conn, err := f.Client.Dial("udp", netip.AddrPortFrom(resolver, 53).String(), lab.Patience)
	f.must(err)
	defer conn.Close() //nolint:errcheck // heard already
	exchange := &dns.Conn{Conn: conn}
	f.must(exchange.WriteMsg(new(dns.Msg).SetQuestion(name, kind)))
	message, err := exchange.ReadMsg()
	f.must(err)
	for _, record := range message.Answer {
		binding, ok := record.(*dns.HTTPS)
		service := &dns.SVCB{}
		if ok {
			service = &binding.SVCB
		} else if service, ok = record.(*dns.SVCB); !ok {
			continue
		}
		for _, parameter := range service.Value {
			switch hint := parameter.(type) {
			case *dns.SVCBIPv4Hint:
				for _, ip := range hint.Hint {
					address, _ := netip.AddrFromSlice(ip.To4())
					hints = append(hints, address)
				}
			case *dns.SVCBIPv6Hint:
				for _, ip := range hint.Hint {
					address, _ := netip.AddrFromSlice(ip.To16())
					hints = append(hints, address)
				}
			}
		}
	}
	return hints
}

// mappings returns what the agent knows of a name, once it knows something.
func (f *fleet) mappings(domain string) (mappings []*namewardv1.Mapping) {
	f.t.Helper()
	conn, err := f.DialAgent()
	f.must(err)
	defer conn.Close() //nolint:errcheck // asked already
	f.must(lab.Await(f.t.Context(), func() error {
		response, err := agentv1.NewLocalServiceClient(conn).ListMappings(f.t.Context(), &namewardv1.ListMappingsRequest{
			Filter: &namewardv1.MappingFilter{Domain: domain},
		})
		if mappings = response.GetMappings(); err == nil && len(mappings) == 0 {
			return io.EOF
		}
		return err
	}, nil))
	return mappings
}

// TestLifetimes: a mapping lives for the smallest TTL on its chain, within bounds, and a grace. Then its
// address is closed, but what was allowed goes on.
func TestLifetimes(t *testing.T) {
	_, stages := newStages(t, "--min-ttl", "2s", "--max-ttl", "4s", "--ttl-grace", "1s")
	for _, s := range stages {
		t.Run(s.asker.Address.Addr().String(), func(t *testing.T) {
			for _, test := range []struct {
				alias, address uint32
				want           time.Duration
			}{
				{60, 0, 3 * time.Second}, {60, 3, 4 * time.Second}, {3, 60, 4 * time.Second}, {60, 60, 5 * time.Second}, {60, 1 << 31, 3 * time.Second},
			} {
				address := s.next()
				s.resolveAlias(t, address, test.alias, test.address)
				mapping := s.mappingOf(address)
				if got := mapping.GetExpireTime().AsTime().Sub(mapping.GetLastSeenTime().AsTime()); got < test.want || got > test.want+100*time.Millisecond {
					t.Errorf("TTLs %d and %d: lives for %v, want %v", test.alias, test.address, got, test.want)
				}
			}
			address := s.next()
			s.resolveAlias(t, address, 60, 60)
			until := s.mappingOf(address).GetExpireTime().AsTime()
			s.resolveAlias(t, address, 60, 0) // prolongs, never shortens
			conn, err := s.Client.Dial("tcp", netip.AddrPortFrom(address, lab.ServicePort).String(), lab.Patience)
			s.must(err)
			defer conn.Close() //nolint:errcheck // heard already
			s.must(lab.Await(t.Context(), func() error {
				if err := s.Connect(address, lab.ServicePort); !lab.Refused(err) {
					return io.ErrNoProgress
				}
				return nil
			}, nil))
			if early := time.Until(until); early > 0 {
				t.Errorf("%s was closed %v before its mapping expired", address, early)
			}
			if _, err := conn.Write([]byte("still here")); err != nil {
				t.Errorf("the connection that was allowed: %v", err)
			}
			s.must(conn.SetDeadline(time.Now().Add(lab.Patience)))
			heard := make([]byte, 256)
			for text := ""; !bytes.Contains([]byte(text), []byte("still here")); {
				size, err := conn.Read(heard)
				if err != nil {
					t.Fatalf("the connection that was allowed: %v", err)
				}
				text += string(heard[:size])
			}
		})
	}
}

// resolveAlias has the client hear that an alias of api.example has an address.
func (s *stage) resolveAlias(t *testing.T, address netip.Addr, aliasTTL, addressTTL uint32) {
	t.Helper()
	query := s.ask()
	message := answer(query, address)
	message.Answer[0].Header().Name, message.Answer[0].Header().Ttl = "x.cdn.example.", addressTTL
	alias := &dns.CNAME{Hdr: dns.RR_Header{Name: "api.example.", Rrtype: dns.TypeCNAME, Class: dns.ClassINET, Ttl: aliasTTL}, Target: "x.cdn.example."}
	message.Answer = append(message.Answer, alias)
	wire := s.pack(message)
	s.hearAnswer(t, s.asker, wire, func() error { return s.resolver.Say(s.asker.Address, wire) })
}

// mappingOf waits for the mapping of an address to api.example.
func (s *stage) mappingOf(address netip.Addr) (found *namewardv1.Mapping) {
	s.t.Helper()
	s.must(lab.Await(s.t.Context(), func() error {
		for _, mapping := range s.mappings("api.example") {
			if mapping.GetAddress() == address.String() {
				found = mapping
				return nil
			}
		}
		return io.EOF
	}, nil))
	return found
}
