package conntrack

import (
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/api/ruleset"
)

// ownConnection sends a datagram of this process and returns what the kernel tracks of it.
func (m *machine) ownConnection(t *testing.T, to string) ruleset.Connection {
	t.Helper()
	destination := netip.MustParseAddrPort(to)
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(destination))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	source := netip.MustParseAddrPort(conn.LocalAddr().String())
	return ruleset.Connection{Local: true, Source: source.Addr().Unmap(), Destination: destination.Addr(), Protocol: ruleset.UDP, Port: destination.Port()}
}

// rulesFor lets processes reach nothing but one address.
func rulesFor(w ruleset.Workload, address string) *ruleset.RuleSet {
	return ruleset.New([]ruleset.Policy{{
		Name: "policies/test", Workloads: []ruleset.Workload{w},
		Rules: []ruleset.Rule{{CIDRs: []netip.Prefix{netip.MustParsePrefix(address)}}},
	}})
}

func ownCgroup(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(content)) {
		if path, found := strings.CutPrefix(line, "0::"); found {
			return strings.TrimSpace(path)
		}
	}
	t.Skip("this process is in no control group of the cgroup2 hierarchy")
	return ""
}

func TestOwnersOfConnections(t *testing.T) {
	cgroup := ownCgroup(t)
	me, other := uint32(os.Geteuid()), uint32(12345) //nolint:gosec // a user id
	for _, c := range []struct {
		fact string
		w    ruleset.Workload
		cut  bool
	}{
		{"all of the node", ruleset.Workload{Host: true}, true},
		{"its user", ruleset.Workload{UID: &me}, true},
		{"another user", ruleset.Workload{UID: &other}, false},
		{"its control group", ruleset.Workload{Cgroup: cgroup}, true},
		{"another control group", ruleset.Workload{Cgroup: "/nowhere.slice"}, false},
		{"another unit", ruleset.Workload{Unit: "nowhere.service"}, false},
	} {
		t.Run(c.fact, func(t *testing.T) {
			m := newMachine(t, true)
			command(t, "ip addr add fd01::1/64 dev in0 nodad")
			for _, to := range []string{"10.1.9.9:443", "[fd01::9]:443"} {
				connection := m.ownConnection(t, to)
				bits := connection.Destination.BitLen()
				before := rulesFor(c.w, netip.PrefixFrom(connection.Destination, bits).String())
				if _, err := m.Cut(t.Context(), []*ruleset.RuleSet{before}, rulesFor(c.w, "192.0.2.0/24")); err != nil {
					t.Fatal(err)
				}
				if got := m.IsCut(connection); got != c.cut {
					t.Errorf("to %s: cut %t, want %t", to, got, c.cut)
				}
			}
		})
	}
}

func TestOwnersAreRead(t *testing.T) {
	cgroup := ownCgroup(t)
	m := newMachine(t, true)
	unconnected, err := net.ListenPacket("udp", "0.0.0.0:7777")
	if err != nil {
		t.Fatal(err)
	}
	defer unconnected.Close() //nolint:errcheck // ends with the test
	c := m.ownConnection(t, "10.1.9.9:443")
	found := false
	if _, err := m.native.list(func(e *entry) {
		if e.original.source.Addr() != c.Source {
			return
		}
		found = true
		if got := readOwners().of(e.original); len(got) != 1 || got[0].uid != uint32(os.Geteuid()) || got[0].cgroup != cgroup { //nolint:gosec // a user id
			t.Errorf("owners of %v: got %+v, want this process, of %s", e.original, got, cgroup)
		}
	}); err != nil || !found {
		t.Fatalf("found %t, %v", found, err)
	}
	from := tuple{netip.MustParseAddrPort("10.1.0.1:7777"), netip.MustParseAddrPort("10.1.9.9:53"), unix.IPPROTO_UDP}
	if got := readOwners().of(from); len(got) != 1 {
		t.Errorf("of a socket that is not connected: got %v, want one", got)
	}
	from.source = netip.MustParseAddrPort("10.1.0.1:7778")
	if got := readOwners().of(from); len(got) != 0 {
		t.Errorf("of no socket: got %v, want none", got)
	}
}
