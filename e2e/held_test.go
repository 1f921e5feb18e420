package e2e_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/e2e/lab"
)

// held is a connection that stays open, to a service that says back what it is told.
type held struct {
	net.Conn
	what string
}

// hold opens a connection and hears that it works.
func (f *fleet) hold(t *testing.T, from *lab.Namespace, network string, to netip.Addr, port uint16) *held {
	t.Helper()
	return holdFrom(t, from, network, netip.AddrPortFrom(to, port))
}

func holdFrom(t *testing.T, from *lab.Namespace, network string, to netip.AddrPort) *held {
	t.Helper()
	conn, err := from.Dial(network, to.String(), 5*time.Second)
	if err != nil {
		t.Fatalf("%s from %s to %s: %v", network, from.Name, to, err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	h := &held{conn, fmt.Sprintf("%s from %s to %s", network, from.Name, to)}
	if network == "tcp" {
		if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := bufio.NewReaderSize(conn, 16).ReadString('\n'); err != nil {
			t.Fatalf("%s: greeting: %v", h.what, err)
		}
	}
	if err := h.talk(); err != nil {
		t.Fatalf("%s: %v", h.what, err)
	}
	return h
}

// talk says something and hears it back.
func (h *held) talk() error {
	if err := h.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := h.Write([]byte("ping")); err != nil {
		return err
	}
	got := 0
	for buffer := make([]byte, 64); got < 4; {
		n, err := h.Read(buffer)
		if err != nil {
			return err
		}
		got += n
	}
	return h.acknowledge()
}

// acknowledge has TCP say at once what it heard, so that nothing is said later.
func (h *held) acknowledge() error {
	conn, ok := h.Conn.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1) })
	return errors.Join(err, set)
}

func expectAlive(t *testing.T, connections ...*held) {
	t.Helper()
	for _, h := range connections {
		if err := h.talk(); err != nil {
			t.Errorf("%s: got %v, want it open", h.what, err)
		}
	}
}

// expectCut fails the test unless the next packet of each ends it at once.
func expectCut(t *testing.T, connections ...*held) {
	t.Helper()
	for _, h := range connections {
		if err := h.talk(); !ended(err) {
			t.Errorf("%s: got %v, want it cut", h.what, err)
		}
	}
}

func ended(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.EPERM) || lab.Refused(err)
}

// awaitCut waits until the agent has cut and kept so many connections since it started. All of the walk in
// which the last of them was is done then.
func (f *fleet) awaitCut(t *testing.T, cut, kept uint64) {
	t.Helper()
	f.counters(func(c map[string]uint64) bool {
		return c["connections_cut"] == cut && c["connections_kept"] == kept && c["connections_cut_faults"] == 0
	})
}

// holdInbound opens connections from the world to the client and to the node.
func (f *fleet) holdInbound() []*held {
	f.t.Helper()
	var all []*held
	for namespace, addresses := range map[*lab.Namespace][]netip.Addr{f.Client: {lab.ClientV4, lab.ClientV6}, f.Node: {lab.NodeV4, lab.NodeV6}} {
		f.serve(f.t, namespace, 7000, echoLine)
		for _, address := range addresses {
			all = append(all, f.hold(f.t, f.World, "tcp", address, 7000))
		}
	}
	return all
}

// holdUnselected opens connections to what the policy denies, from an address that it does not select.
func (f *fleet) holdUnselected() []*held {
	f.t.Helper()
	var all []*held
	for address, name := range map[string]netip.Addr{"10.91.1.9/24": lab.ResolverV4, "fd91:1::9/64": lab.ResolverV6} {
		f.addAddress(netip.MustParsePrefix(address))
		evil, err := f.World.Resolve(name, "evil.example")
		f.must(err)
		source := netip.MustParsePrefix(address).Addr()
		var conn net.Conn
		f.must(f.Client.Do(func() (err error) {
			dialer := net.Dialer{Timeout: 5 * time.Second, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))}
			conn, err = dialer.Dial("tcp", netip.AddrPortFrom(evil[0], lab.OtherPort).String())
			return err
		}))
		f.t.Cleanup(func() { _ = conn.Close() })
		h := &held{conn, "tcp from an address that no policy selects"}
		f.must(h.SetDeadline(time.Now().Add(5 * time.Second)))
		_, err = bufio.NewReaderSize(conn, 16).ReadString('\n')
		f.must(err)
		all = append(all, h)
	}
	return all
}

// addAddress gives the client an address that it uses where it is told to.
func (f *fleet) addAddress(address netip.Prefix) {
	f.t.Helper()
	args := []string{"addr", "add", address.String(), "dev", "eth0", "preferred_lft", "0"}
	if address.Addr().Is6() {
		args = append(args, "nodad")
	}
	if out, err := f.Client.Command(f.t.Context(), "ip", args...).CombinedOutput(); err != nil {
		f.t.Fatalf("%v\n%s", err, out)
	}
}

// serve answers connections to a port of a namespace until the test ends.
func (f *fleet) serve(t *testing.T, at *lab.Namespace, port int, handle func(net.Conn)) {
	t.Helper()
	var listener net.Listener
	f.must(at.Do(func() (err error) {
		listener, err = net.Listen("tcp", fmt.Sprintf("[::]:%d", port))
		return err
	}))
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close() //nolint:errcheck // the client sees it
				handle(conn)
			}()
		}
	}()
}

// echoLine greets, and says back what it is told.
func echoLine(conn net.Conn) {
	if _, err := conn.Write([]byte("hello\n")); err != nil {
		return
	}
	buffer := make([]byte, 1024)
	for {
		n, err := conn.Read(buffer)
		if err != nil {
			return
		}
		if _, err := conn.Write(buffer[:n]); err != nil {
			return
		}
	}
}
