package e2e_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/e2e/lab"
)

// States of a TCP connection in the kernel's table (linux/netfilter/nf_conntrack_tcp.h).
const (
	conntrackSynRecv     = 2
	conntrackEstablished = 3
	conntrackTimeWait    = 7
	conntrackClose       = 8
)

// TestOpenedOnPortsInUse: each connection is judged when it is opened, also where the kernel takes its first segment for
// one of a connection that is in its table: one that nobody judged, or one that the other side seems to have opened.
func TestOpenedOnPortsInUse(t *testing.T) {
	forEachBackend(t, func(t *testing.T, backend string) {
		f := newFleet(t, "--iptables", backend)
		policy := clientPolicy("api.example")
		policy.Workloads = append(policy.Workloads, &namewardv1.Workload{Host: true})
		f.put(policy)
		t.Run("alone", f.openOnPortsInUse)
		for _, program := range []string{"iptables-", "ip6tables-"} {
			for _, hook := range []string{"FORWARD", "OUTPUT"} {
				f.iptables(t, program+backend, "-t mangle -A "+hook+" -j MARK --set-mark 7")
			}
		}
		t.Run("beside who writes the whole mark", f.openOnPortsInUse)
	})
}

func (f *fleet) openOnPortsInUse(t *testing.T) {
	port := uint16(20_000)
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
		evil, api := f.learn(t, resolver, "evil.example"), f.learn(t, resolver, "api.example")
		client, node := lab.ClientV4, lab.NodeV4
		if evil.Is6() {
			client, node = lab.ClientV6, lab.NodeV6
		}
		for _, from := range []struct {
			namespace *lab.Namespace
			address   netip.Addr
		}{{f.Client, client}, {f.Node, node}} {
			for state := uint8(conntrackSynRecv); state <= conntrackClose; state++ {
				for _, by := range []string{"it", "the other side"} {
					if by != "it" && state != conntrackTimeWait {
						continue // the kernel finds the segment invalid, and one that is denied is dropped
					}
					port++
					source := netip.AddrPortFrom(from.address, port)
					t.Run(fmt.Sprintf("from %s, in state %d, opened by %s", from.namespace.Name, state, by), func(t *testing.T) {
						for _, to := range []netip.Addr{evil, api} {
							destination := netip.AddrPortFrom(to, lab.ServicePort)
							f.track(source, destination, state, by == "it")
							err := connectFrom(from.namespace, source, destination)
							if denied := to == evil; lab.Refused(err) != denied || !denied && err != nil {
								t.Errorf("to %s: got %v", destination, err)
							}
						}
					})
				}
			}
		}
	})
}

// TestOpenedAfterADenialOnPortsInUse: a client that keeps its port is let through when the answer comes, also where the
// kernel takes its segments for those of a connection that it still has in its table; and is cut when the rules change.
func TestOpenedAfterADenialOnPortsInUse(t *testing.T) {
	forEachBackend(t, func(t *testing.T, backend string) {
		f := newFleet(t, "--iptables", backend)
		for _, program := range []string{"iptables-", "ip6tables-"} {
			for _, hook := range []string{"FORWARD", "OUTPUT"} {
				f.iptables(t, program+backend, "-t mangle -A "+hook+" -j MARK --set-mark 7")
			}
		}
		policy, narrow := clientPolicy("*.fresh.example", "api.example"), clientPolicy("api.example")
		policy.Workloads = append(policy.Workloads, &namewardv1.Workload{Host: true})
		narrow.Workloads = policy.Workloads
		f.put(policy)
		port, fresh := uint16(30_000), 0
		forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
			for _, from := range []*lab.Namespace{f.Client, f.Node} {
				for _, state := range []uint8{conntrackSynRecv, conntrackEstablished} {
					port++
					fresh++
					name := lab.FreshName(fresh)
					addresses, err := f.World.Resolve(resolver, name) // of which the node knows nothing
					f.must(err)
					address := map[bool]netip.Addr{true: lab.ClientV4, false: lab.NodeV4}[from == f.Client]
					if resolver.Is6() {
						address = map[bool]netip.Addr{true: lab.ClientV6, false: lab.NodeV6}[from == f.Client]
					}
					source, destination := netip.AddrPortFrom(address, port), netip.AddrPortFrom(addresses[0], lab.ServicePort)
					t.Run(fmt.Sprintf("from %s, in state %d", from.Name, state), func(t *testing.T) {
						f.track(source, destination, state, true)
						for _, step := range []struct {
							fact    string
							does    func()
							refused bool
						}{
							{"before the answer", func() {}, true},
							{"after it", func() { f.learn(t, resolver, name) }, false},
							{"once more", func() {}, false},
							{"when it is no longer allowed", func() { f.put(narrow) }, true},
							{"when it is allowed again", func() { f.put(policy) }, false},
						} {
							step.does()
							if err := connectFrom(from, source, destination); lab.Refused(err) != step.refused || !step.refused && err != nil {
								t.Errorf("%s: got %v", step.fact, err)
							}
						}
					})
				}
			}
		})
	})
}

// TestDeniedAgainOnPortsInUse: on ports where a connection was denied, and then allowed, the next one is judged too, and
// its denial does not hang on a mark that others write.
func TestDeniedAgainOnPortsInUse(t *testing.T) {
	forEachBackend(t, func(t *testing.T, backend string) {
		f := newFleet(t, "--iptables", backend, "--min-ttl", "3s", "--max-ttl", "3s", "--ttl-grace", "0s")
		for _, hook := range []string{"FORWARD", "OUTPUT"} {
			f.iptables(t, "iptables-"+backend, "-t mangle -A "+hook+" -j MARK --set-mark 7")
		}
		policy := clientPolicy("*.fresh.example")
		policy.Workloads = append(policy.Workloads, &namewardv1.Workload{Host: true})
		f.put(policy)
		for i, from := range []struct {
			namespace *lab.Namespace
			address   netip.Addr
		}{{f.Client, lab.ClientV4}, {f.Node, lab.NodeV4}} {
			name := lab.FreshName(i)
			addresses, err := f.World.Resolve(lab.ResolverV4, name) // of which the node knows nothing
			f.must(err)
			source, destination := netip.AddrPortFrom(from.address, 31_000), netip.AddrPortFrom(addresses[0], lab.ServicePort)
			f.track(source, destination, conntrackEstablished, true)
			if err := connectFrom(from.namespace, source, destination); !lab.Refused(err) {
				t.Errorf("from %s, before the answer: got %v, want refused", from.namespace.Name, err)
			}
			// Allowed, and lost behind our rules: the kernel's table has the connection before, as it was.
			f.learn(t, lab.ResolverV4, name)
			lost := fmt.Sprintf(" POSTROUTING -p tcp --syn -d %s -j DROP", destination.Addr())
			f.iptables(t, "iptables-"+backend, "-t mangle -A"+lost)
			if err := connectFrom(from.namespace, source, destination); err == nil || lab.Refused(err) {
				t.Errorf("from %s, after it: got %v, want a time-out", from.namespace.Name, err)
			}
			f.iptables(t, "iptables-"+backend, "-t mangle -D"+lost)
			f.must(lab.Await(t.Context(), func() error {
				if err := f.Connect(destination.Addr(), lab.ServicePort); !lab.Refused(err) {
					return fmt.Errorf("got %w, want refused", err)
				}
				return nil
			}, nil))
			if err := connectFrom(from.namespace, source, destination); err == nil {
				t.Errorf("from %s, when its mapping has ended: it connected", from.namespace.Name)
			}
		}
	})
}

// track puts a TCP connection into the node's table.
func (f *fleet) track(source, destination netip.AddrPort, state uint8, original bool) {
	f.t.Helper()
	if !original {
		source, destination = destination, source
	}
	family := netlink.InetFamily(unix.AF_INET)
	if source.Addr().Is6() {
		family = unix.AF_INET6
	}
	tuple := func(from, to netip.AddrPort) netlink.IPTuple {
		return netlink.IPTuple{
			SrcIP: from.Addr().AsSlice(), DstIP: to.Addr().AsSlice(), SrcPort: from.Port(), DstPort: to.Port(), Protocol: unix.IPPROTO_TCP,
		}
	}
	f.must(f.Node.Do(func() error {
		return netlink.ConntrackCreate(netlink.ConntrackTable, family, &netlink.ConntrackFlow{
			FamilyType: uint8(family), Forward: tuple(source, destination), Reverse: tuple(destination, source), TimeOut: 300,
			ProtoInfo: &netlink.ProtoInfoTCP{State: state},
		})
	}))
}

func connectFrom(from *lab.Namespace, source, destination netip.AddrPort) error {
	return from.Do(func() error {
		dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(source), Timeout: 5 * time.Second, Control: reuseAddress}
		conn, err := dialer.Dial("tcp", destination.String())
		if err != nil {
			return err
		}
		_ = conn.(*net.TCPConn).SetLinger(0) // so that the port can be used again at once
		return conn.Close()
	})
}

// reuseAddress lets a port be bound again while a process that another test just begins still holds the socket that was
// closed: a child has all files until it executes its program.
func reuseAddress(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	})
	return errors.Join(err, failed)
}
