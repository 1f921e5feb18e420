package conntrack

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// origins says where connections come from, which the kernel's table does not.
type origins struct {
	routes     *netlink.Handle         // one socket for all questions
	local      map[netip.Addr]bool     // addresses of the node
	names      map[int]string          // of interfaces
	interfaces map[netip.Addr][]string // found: those behind which a source is
	locals     map[netip.Addr]bool     // found: destinations that are the node
}

func readOrigins() (*origins, error) {
	routes, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	o := &origins{
		routes: routes, local: map[netip.Addr]bool{}, names: map[int]string{},
		interfaces: map[netip.Addr][]string{}, locals: map[netip.Addr]bool{},
	}
	if err := o.read(); err != nil {
		o.close()
		return nil, err
	}
	return o, nil
}

func (o *origins) close() { o.routes.Close() }

func (o *origins) read() error {
	addresses, err := retried(func() ([]netlink.Addr, error) { return o.routes.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addresses {
		if address, ok := netip.AddrFromSlice(a.IP); ok {
			o.local[address.Unmap()] = true
		}
	}
	links, err := retried(o.routes.LinkList)
	if err != nil {
		return fmt.Errorf("list network interfaces: %w", err)
	}
	for _, link := range links {
		o.names[link.Attrs().Index] = link.Attrs().Name
	}
	return nil
}

// retried begins a listing anew that the kernel interrupted.
func retried[E any](list func() ([]E, error)) (found []E, err error) {
	for range listings {
		if found, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return found, err
}

// own reports whether a source is the node itself.
func (o *origins) own(source netip.Addr) bool { return source.IsLoopback() || o.local[source] }

// toNode reports whether a destination is the node itself: what is opened to it is no egress.
func (o *origins) toNode(destination netip.Addr) bool {
	if destination.IsLoopback() || o.local[destination] {
		return true
	}
	is, known := o.locals[destination]
	if !known {
		// A route alone may make it so, too.
		routes, err := o.routes.RouteGet(destination.AsSlice())
		is = err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL
		o.locals[destination] = is
	}
	return is
}

// behind returns the interfaces through which packets of a forwarded source come in: those of the route
// to it. None: there is no route.
func (o *origins) behind(source netip.Addr) []string {
	found, known := o.interfaces[source]
	if known {
		return found
	}
	// The route itself, since the kernel names but one of several ways to go.
	routes, err := o.routes.RouteGetWithOptions(source.AsSlice(), &netlink.RouteGetOptions{FIBMatch: true})
	if err == nil {
		for _, route := range routes {
			found = o.through(found, route.LinkIndex)
			for _, hop := range route.MultiPath {
				found = o.through(found, hop.LinkIndex)
			}
		}
	}
	o.interfaces[source] = found
	return found
}

func (o *origins) through(names []string, index int) []string {
	if name, known := o.names[index]; known {
		return append(names, name)
	}
	return names
}

// all returns every interface, and none for one that is gone.
func (o *origins) all() []string {
	names := []string{""}
	for _, name := range o.names {
		names = append(names, name)
	}
	return names
}
