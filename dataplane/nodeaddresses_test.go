package dataplane

import (
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/nameward/nameward/bpf/bpftest"
)

// TestNodeAddresses: what the kernel routes to the node itself is the node's own, and is reported.
func TestNodeAddresses(t *testing.T) {
	bpftest.RequirePrivileged(t)
	runtime.LockOSThread() // never unlocked: the thread ends with the test, and the namespace with it
	space, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer space.Close()
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"192.0.2.1/24", "2001:db8::1/64"} {
		address, err := netlink.ParseAddr(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.AddrAdd(lo, address); err != nil {
			t.Fatal(err)
		}
	}
	any, err := netlink.ParseIPNet("198.51.100.0/24")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: any, Table: 255, Type: 2, Scope: netlink.SCOPE_HOST}); err != nil {
		t.Fatal(err)
	}
	var a nodeAddresses
	// The kernel finishes an IPv6 address in the background.
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if own, err := a.Own(netip.MustParseAddr("2001:db8::1")); own || err != nil {
			break
		}
	}
	for text, want := range map[string]bool{
		"192.0.2.1": true, "2001:db8::1": true, "198.51.100.77": true, "127.0.0.1": true, "::1": true,
		"203.0.113.1": false, "2001:db8:9::1": false, "255.255.255.255": false, "ff02::1": false,
	} {
		if got, err := a.Own(netip.MustParseAddr(text)); err != nil || got != want {
			t.Errorf("Own(%s): got %t, %v, want %t", text, got, err, want)
		}
	}
	own, more, err := a.reported()
	if err != nil || more {
		t.Fatalf("more: %t, %v", more, err)
	}
	for _, text := range []string{"192.0.2.1/32", "2001:db8::1/128", "198.51.100.0/24"} {
		if !slices.Contains(own, netip.MustParsePrefix(text)) {
			t.Errorf("%v lacks %s", own, text)
		}
	}
	if slices.ContainsFunc(own, func(p netip.Prefix) bool { return p.Addr().IsLoopback() }) {
		t.Errorf("%v has loopback", own)
	}
}
