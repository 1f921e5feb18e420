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

// dropAll adds rules of the node that let no connection to the services pass, nor any that is forwarded.
func (f *fleet) dropAll(t *testing.T, backend string) {
	t.Helper()
	for program, services := range map[string]netip.Prefix{"iptables-": lab.ServicesV4, "ip6tables-": lab.ServicesV6} {
		for _, table := range []string{"mangle", "filter"} {
			f.iptables(t, program+backend, "-t "+table+" -A FORWARD -j DROP")
			f.iptables(t, program+backend, "-t "+table+" -A OUTPUT -d "+services.String()+" -j DROP")
		}
	}
}

// expectDropped fails the test unless nobody answers a connection. The node's own may be told at once.
func expectDropped(t *testing.T, what string, err error) {
	t.Helper()
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("%s: got %v, want it dropped", what, err)
	}
}

// TestAllowedTargetAccept: what a policy allowed passes the node's other rules, and nothing else does.
func TestAllowedTargetAccept(t *testing.T) {
	forEachBackend(t, func(t *testing.T, backend string) {
		f := newFleet(t, "--iptables", backend, "--allowed-target", "ACCEPT")
		f.put(openPolicy("api.example"))
		f.dropAll(t, backend)
		var all []*held
		forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
			f.expectOpen(t, resolver, "api.example")
			api, err := f.World.Resolve(resolver, "api.example")
			f.must(err)
			evil, err := f.World.Resolve(resolver, "evil.example")
			f.must(err)
			for _, from := range []*lab.Namespace{f.Client, f.Node} {
				for _, network := range []string{"tcp", "udp"} {
					all = append(all, f.hold(f.t, from, network, api[0], lab.ServicePort))
				}
				// Told or not: the node's rules of mangle come before where that is done.
				if err := from.Connect(evil[0], lab.ServicePort); err == nil {
					t.Errorf("%s: what is denied opens", from.Name)
				}
			}
			f.expectUnselectedDropped(t, resolver, api[0])
		})
		// What others open to the client is no egress: the node's rules decide.
		f.serve(t, f.Client, 7002, echoLine)
		for _, address := range []netip.Addr{lab.ClientV4, lab.ClientV6} {
			expectDropped(t, "from the world to the client", f.World.Connect(address, 7002))
		}
		expectAlive(t, all...)
		// Other names of the policies keep it, the last policy that selects it gone it is nobody's.
		f.put(openPolicy("api.example", "late.example"))
		expectAlive(t, all...)
		_, err := namewardv1.NewPolicyServiceClient(f.conn).DeletePolicy(t.Context(), &namewardv1.DeletePolicyRequest{Name: "policies/client"})
		f.must(err)
		f.awaitCurrent()
		for _, h := range all[:1] {
			f.must(lab.Await(t.Context(), func() error {
				if err := h.talk(); !errors.Is(err, os.ErrDeadlineExceeded) {
					return errors.Join(errors.New("it still passes the node's rules"), err)
				}
				return nil
			}, nil))
		}
		for _, resolver := range f.Resolvers() {
			address, err := f.World.Resolve(resolver, "api.example")
			f.must(err)
			expectDropped(t, "without a policy", f.Connect(address[0], lab.ServicePort))
		}
	})
}

// expectUnselectedDropped connects from an address of the client that no policy selects.
func (f *fleet) expectUnselectedDropped(t *testing.T, resolver, to netip.Addr) {
	t.Helper()
	source, length := "10.91.1.8", "/24"
	if resolver.Is6() {
		source, length = "fd91:1::8", "/64"
	}
	f.addAddress(netip.MustParsePrefix(source + length))
	err := f.Client.Do(func() error {
		dialer := net.Dialer{Timeout: 300 * time.Millisecond, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(source), 0))}
		conn, err := dialer.Dial("tcp", netip.AddrPortFrom(to, lab.ServicePort).String())
		if err == nil {
			_ = conn.Close()
		}
		return err
	})
	expectDropped(t, "from a workload that no policy selects", err)
}

// TestAllowedTargetReturn: by default the node's other rules still decide.
func TestAllowedTargetReturn(t *testing.T) {
	forEachBackend(t, func(t *testing.T, backend string) {
		f := newFleet(t, "--iptables", backend)
		f.put(openPolicy("api.example"))
		for program, services := range map[string]netip.Prefix{"iptables-": lab.ServicesV4, "ip6tables-": lab.ServicesV6} {
			f.iptables(t, program+backend, "-A FORWARD -d "+services.String()+" -j DROP")
		}
		forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
			address := f.learn(t, resolver, "api.example")
			expectDropped(t, "what a policy allows", f.Connect(address, lab.ServicePort))
			f.expectRefused(t, resolver, "evil.example")
		})
	})
}
