package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// maxReported is how many of its own addresses a node reports.
const maxReported = 256

// nodeAddresses are what the node always allows: who it is, whom it trusts, and who its servers are.
type nodeAddresses struct {
	resolvers []netip.AddrPort

	mu      sync.Mutex // guards servers
	servers []netip.AddrPort
}

// setServers notes the policy servers that the datapath lets the node reach.
func (a *nodeAddresses) setServers(servers []netip.AddrPort) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.servers = slices.Clone(servers)
}

// Servers returns the policy servers.
func (a *nodeAddresses) Servers() []netip.AddrPort {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.servers
}

// Resolvers returns the trusted resolvers.
func (a *nodeAddresses) Resolvers() []netip.AddrPort { return a.resolvers }

// Own reports whether an address is one of the node's, by the route that the kernel takes: what iptables
// calls the type LOCAL.
func (a *nodeAddresses) Own(address netip.Addr) (bool, error) {
	routes, err := netlink.RouteGet(address.AsSlice())
	switch {
	case unreachable(err) || err == nil && len(routes) == 0:
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look up route to %s: %w", address, err)
	}
	return routes[0].Type == unix.RTN_LOCAL, nil
}

func unreachable(err error) bool {
	for _, errno := range []error{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EACCES, unix.EINVAL} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// reported returns the node's own addresses and networks, loopback left out, and whether there are more
// than are reported.
func (a *nodeAddresses) reported() (own []netip.Prefix, more bool, err error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, false, fmt.Errorf("open netlink: %w", err)
	}
	defer handle.Close()
	// The kernel then filters: a router may have a million routes elsewhere.
	if err := handle.SetStrictCheck(true); err != nil {
		return nil, false, fmt.Errorf("filter routes: %w", err)
	}
	filter := &netlink.Route{Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		err := handle.RouteListFilteredIter(family, filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE, func(route netlink.Route) bool {
			if prefix, ok := toPrefix(route); ok && !prefix.Addr().IsLoopback() && !slices.Contains(own, prefix) {
				own = append(own, prefix)
			}
			more = len(own) > maxReported
			return !more
		})
		if err != nil {
			return nil, false, fmt.Errorf("list local routes: %w", err)
		}
	}
	return own[:min(len(own), maxReported)], more, nil
}

func prefixTexts(prefixes []netip.Prefix) []string {
	list := make([]string, 0, len(prefixes))
	for _, prefix := range prefixes {
		if prefix.IsSingleIP() {
			list = append(list, prefix.Addr().String())
		} else {
			list = append(list, prefix.String())
		}
	}
	return list
}

func endpointTexts(endpoints []netip.AddrPort) []string {
	list := make([]string, 0, len(endpoints))
	for _, endpoint := range endpoints {
		list = append(list, endpoint.String())
	}
	return list
}

func toPrefix(route netlink.Route) (netip.Prefix, bool) {
	if route.Dst == nil {
		return netip.Prefix{}, false
	}
	address, ok := netip.AddrFromSlice(route.Dst.IP)
	ones, _ := route.Dst.Mask.Size()
	return netip.PrefixFrom(address.Unmap(), ones), ok
}
