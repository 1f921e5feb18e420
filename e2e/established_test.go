package e2e_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/e2e/lab"
)

// openPolicy lets the client and the node itself reach names, over every protocol.
func openPolicy(patterns ...string) *namewardv1.Policy {
	policy := clientPolicy(patterns...)
	policy.Workloads = append(policy.Workloads, &namewardv1.Workload{Host: true})
	policy.Rules[0].Ports = nil
	return policy
}

// TestEstablishedIsCut: what a change no longer allows ends with its next packet, and nothing else does.
func TestEstablishedIsCut(t *testing.T) {
	forEachBackend(t, func(t *testing.T, backend string) {
		f := newFleet(t, "--iptables", backend)
		// Scripts of others that write the whole mark do not keep a connection open.
		for _, program := range []string{"iptables-", "ip6tables-"} {
			for _, hook := range []string{"FORWARD", "OUTPUT"} {
				f.iptables(t, program+backend, "-t mangle -A "+hook+" -p tcp -j MARK --set-mark 7")
			}
		}
		f.put(openPolicy("api.example", "evil.example"))
		var lost, stay []*held
		forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
			evil, api := f.learn(t, resolver, "evil.example"), f.learn(t, resolver, "api.example")
			for _, from := range []*lab.Namespace{f.Client, f.Node} {
				for _, network := range []string{"tcp", "udp"} {
					lost = append(lost, f.hold(f.t, from, network, evil, lab.ServicePort))
					stay = append(stay, f.hold(f.t, from, network, api, lab.ServicePort))
				}
			}
		})
		stay = append(stay, f.holdInbound()...)
		stay = append(stay, f.holdUnselected()...)
		f.put(openPolicy("api.example"))
		f.awaitCut(t, uint64(len(lost)), 0)
		expectAlive(t, stay...)
		expectCut(t, lost...)
		forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
			f.expectRefused(t, resolver, "evil.example")
			f.expectOpen(t, resolver, "api.example")
		})
		expectAlive(t, stay...)
	})
}

// TestEstablishedThatOnlyHears: that the other side sends without end, and first, does not save a
// connection. The kernel would take it for one that was opened from there, were it forgotten.
func TestEstablishedThatOnlyHears(t *testing.T) {
	f := newFleet(t)
	f.put(openPolicy("api.example", "evil.example"))
	f.serve(t, f.World, 7001, func(conn net.Conn) {
		for chunk := make([]byte, 1400); ; {
			if _, err := conn.Write(chunk); err != nil {
				return
			}
			time.Sleep(100 * time.Microsecond)
		}
	})
	var downloads []net.Conn
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
		evil := f.learn(t, resolver, "evil.example")
		for _, from := range []*lab.Namespace{f.Client, f.Node} {
			for range 4 {
				conn, err := from.Dial("tcp", netip.AddrPortFrom(evil, 7001).String(), 5*time.Second)
				f.must(err)
				f.t.Cleanup(func() { _ = conn.Close() })
				downloads = append(downloads, conn)
			}
		}
	})
	ends := make(chan error)
	for _, conn := range downloads {
		f.must(conn.SetDeadline(time.Now().Add(20 * time.Second)))
		go func() {
			var err error
			for buffer := make([]byte, 65536); err == nil; {
				_, err = conn.Read(buffer)
			}
			ends <- err
		}()
	}
	f.put(openPolicy("api.example"))
	for range downloads {
		if err := <-ends; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a download ended with %v, want a reset", err)
		}
	}
}

// TestEstablishedBehindDNAT: a connection is judged by what it asked for, however it was translated.
func TestEstablishedBehindDNAT(t *testing.T) {
	forEachBackend(t, func(t *testing.T, backend string) {
		f := newFleet(t, "--iptables", backend)
		services := map[netip.Addr]string{netip.MustParseAddr("10.96.0.7"): "iptables-", netip.MustParseAddr("fd96::7"): "ip6tables-"}
		policy := func(cidrs ...string) *namewardv1.Policy {
			p := openPolicy("evil.example")
			p.Rules = append(p.Rules, &namewardv1.Rule{Action: namewardv1.Rule_ALLOW, Cidrs: append(cidrs, "192.0.2.0/24")})
			return p
		}
		f.put(policy("10.96.0.7", "fd96::7"))
		var all []*held
		for service, program := range services {
			resolver := lab.ResolverV4
			if service.Is6() {
				resolver = lab.ResolverV6
			}
			// A name of where it really goes does not help.
			to := f.learn(t, resolver, "evil.example")
			for _, hook := range []string{"PREROUTING", "OUTPUT"} {
				f.iptables(t, program+backend, fmt.Sprintf("-t nat -A %s -p tcp -d %s -j DNAT --to-destination %s", hook, service, to))
			}
			f.iptables(t, program+backend, "-t nat -A POSTROUTING -o world0 -j MASQUERADE")
			for _, from := range []*lab.Namespace{f.Client, f.Node} {
				all = append(all, holdFrom(t, from, "tcp", netip.AddrPortFrom(service, lab.ServicePort)))
			}
		}
		f.put(policy())
		f.awaitCut(t, uint64(len(all)), 0)
		expectCut(t, all...)
	})
}

// TestEstablishedIsKept: the policy that allowed a connection says whether it is kept, as it was before the
// change.
func TestEstablishedIsKept(t *testing.T) {
	f := newFleet(t)
	keep := func(patterns ...string) *namewardv1.Policy {
		policy := openPolicy(patterns...)
		policy.Established = namewardv1.Policy_KEEP
		return policy
	}
	f.put(keep("api.example", "evil.example"))
	var keptOnes, lost []*held
	each := func(name string) (all []*held) {
		for _, resolver := range f.Resolvers() {
			address := f.learn(t, resolver, name)
			all = append(all, f.hold(t, f.Client, "tcp", address, lab.ServicePort), f.hold(t, f.Node, "udp", address, lab.ServicePort))
		}
		return all
	}
	keptOnes = each("evil.example")
	lost = each("api.example")
	// The version before the change says KEEP, the new one does not.
	f.put(openPolicy("api.example"))
	f.awaitCut(t, 0, uint64(len(keptOnes)))
	expectAlive(t, keptOnes...)
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) { f.expectRefused(t, resolver, "evil.example") })
	// The new one alone says KEEP.
	f.put(keep("late.example"))
	f.awaitCut(t, uint64(len(lost)), uint64(len(keptOnes)))
	expectCut(t, lost...)
	expectAlive(t, keptOnes...)
}

// TestEstablishedByAnotherWay: a connection that is still allowed by another name of its address, or by
// another rule, is not touched, and neither is one whose mapping expired.
func TestEstablishedByAnotherWay(t *testing.T) {
	f := newFleet(t, "--min-ttl", "3s", "--max-ttl", "3s", "--ttl-grace", "0s")
	f.put(openPolicy("one.shared.example", "two.shared.example", "late.example", "evil.example", "api.example"))
	var shared, late, api, lost []*held
	for _, resolver := range f.Resolvers() {
		for _, entry := range []struct {
			name string
			of   *[]*held
		}{{"one.shared.example", &shared}, {"late.example", &late}, {"api.example", &api}, {"evil.example", &lost}} {
			*entry.of = append(*entry.of, f.hold(t, f.Client, "tcp", f.learn(t, resolver, entry.name), lab.ServicePort))
		}
		f.learn(t, resolver, "two.shared.example")
	}
	// A new connection is refused once the mapping expired.
	for _, h := range late {
		f.must(lab.Await(t.Context(), func() error {
			if err := f.Connect(netip.MustParseAddrPort(h.RemoteAddr().String()).Addr(), lab.ServicePort); !lab.Refused(err) {
				return fmt.Errorf("got %w, want refused", err)
			}
			return nil
		}, nil))
	}
	policy := openPolicy("two.shared.example", "late.example")
	var cidrs []string
	for _, h := range api {
		cidrs = append(cidrs, netip.MustParseAddrPort(h.RemoteAddr().String()).Addr().String())
	}
	policy.Rules = append(policy.Rules, &namewardv1.Rule{Action: namewardv1.Rule_ALLOW, Cidrs: cidrs})
	f.put(policy)
	f.awaitCut(t, uint64(len(lost)), 0)
	expectCut(t, lost...)
	expectAlive(t, shared...)
	expectAlive(t, late...)
	expectAlive(t, api...)
	// The next process knows the names that expired, too.
	f.must(f.agent.Kill())
	f.startAgent()
	f.put(openPolicy("two.shared.example"))
	f.awaitCut(t, uint64(len(late)+len(api)), 0)
	expectCut(t, late...)
	expectCut(t, api...)
	expectAlive(t, shared...)
}

// TestEstablishedWhileAgentIsDead: a change that came while the agent was dead cuts when it is back, and
// what the agent owed when it died is not forgotten.
func TestEstablishedWhileAgentIsDead(t *testing.T) {
	f := newFleet(t)
	f.put(openPolicy("api.example", "evil.example"))
	var lost, stay []*held
	for _, resolver := range f.Resolvers() {
		for _, from := range []*lab.Namespace{f.Client, f.Node} {
			lost = append(lost, f.hold(t, from, "tcp", f.learn(t, resolver, "evil.example"), lab.ServicePort))
			stay = append(stay, f.hold(t, from, "tcp", f.learn(t, resolver, "api.example"), lab.ServicePort))
		}
	}
	f.must(f.agent.Kill())
	// Learned while nobody listens.
	late := f.learn(t, lab.ResolverV4, "late.example")
	_, err := namewardv1.NewPolicyServiceClient(f.conn).UpdatePolicy(t.Context(), &namewardv1.UpdatePolicyRequest{
		Policy: openPolicy("api.example", "late.example"), UpdateMask: allFields, AllowMissing: true,
	})
	f.must(err)
	expectAlive(t, append(lost, stay...)...)
	f.startAgent()
	f.awaitCut(t, uint64(len(lost)), 0)
	expectCut(t, lost...)
	expectAlive(t, stay...)
	expectAlive(t, f.hold(t, f.Client, "tcp", late, lab.ServicePort))
}

// TestEstablishedBeforeTheFirstRules: connections that exist when the first rule set comes are judged by
// it, as if everything had been allowed before.
func TestEstablishedBeforeTheFirstRules(t *testing.T) {
	forEachBackend(t, func(t *testing.T, backend string) {
		f := newServer(t, newLab(t), "--iptables", backend)
		for _, program := range []string{"iptables-", "ip6tables-"} {
			// The kernel tracks connections where some rule asks for it.
			f.iptables(t, program+backend, "-A FORWARD -m conntrack --ctstate INVALID -j DROP")
		}
		policy := openPolicy("api.example")
		policy.Established = namewardv1.Policy_KEEP
		policy.Rules = append(policy.Rules, &namewardv1.Rule{Action: namewardv1.Rule_ALLOW, Cidrs: []string{lab.RogueV4.String(), lab.RogueV6.String()}})
		_, err := namewardv1.NewPolicyServiceClient(f.conn).CreatePolicy(t.Context(), &namewardv1.CreatePolicyRequest{PolicyId: "client", Policy: policy})
		f.must(err)
		var lost, stay []*held
		for _, resolver := range f.Resolvers() {
			addresses, err := f.World.Resolve(resolver, "evil.example")
			f.must(err)
			for _, from := range []*lab.Namespace{f.Client, f.Node} {
				lost = append(lost, f.hold(t, from, "tcp", addresses[0], lab.ServicePort), f.hold(t, from, "udp", addresses[0], lab.ServicePort))
			}
		}
		for _, rogue := range []netip.Addr{lab.RogueV4, lab.RogueV6} {
			stay = append(stay, f.hold(t, f.Client, "tcp", rogue, lab.ServicePort))
		}
		stay = append(stay, f.holdInbound()...)
		f.startAgent()
		f.awaitCut(t, uint64(len(lost)), 0)
		expectCut(t, lost...)
		expectAlive(t, stay...)
	})
}

// TestEstablishedIsAllowedAgain: a connection that said nothing between two changes goes on if the second
// allows it again.
func TestEstablishedIsAllowedAgain(t *testing.T) {
	f := newFleet(t)
	f.put(openPolicy("api.example", "evil.example"))
	var quiet, spoke []*held
	for _, resolver := range f.Resolvers() {
		address := f.learn(t, resolver, "evil.example")
		quiet = append(quiet, f.hold(t, f.Client, "tcp", address, lab.ServicePort), f.hold(t, f.Node, "udp", address, lab.ServicePort))
		spoke = append(spoke, f.hold(t, f.Client, "udp", address, lab.ServicePort))
	}
	f.put(openPolicy("api.example"))
	f.awaitCut(t, uint64(len(quiet)+len(spoke)), 0)
	expectCut(t, spoke...)
	f.put(openPolicy("api.example", "evil.example"))
	expectAlive(t, quiet...)
	for _, h := range spoke {
		f.must(lab.Await(t.Context(), h.talk, nil))
	}
}
