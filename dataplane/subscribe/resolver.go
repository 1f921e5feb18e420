package subscribe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	resolveTimeout = 5 * time.Second
	dialTimeout    = 5 * time.Second // of one address
	// The agent says something every 10 seconds; what is not acknowledged for so long means that the
	// connection was cut without a word.
	silenceTimeout = 20 * time.Second
	// A server that says nothing for so long is asked whether it lives, and has silenceTimeout to answer: its
	// machine may acknowledge for a process that is stuck.
	quietTime = 20 * time.Second
	// A server that accepts and does not speak is left.
	connectTimeout = 10 * time.Second
)

// resolver knows the addresses of the servers. The last known ones count until newer are found: a
// server must stay reachable while its name does not resolve.
type resolver struct {
	lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)

	mu    sync.Mutex // guards all below
	known map[string][]netip.AddrPort
}

// newResolver knows from the start the servers that are named by address.
func newResolver(servers []string) *resolver {
	r := &resolver{lookup: net.DefaultResolver.LookupNetIP, known: map[string][]netip.AddrPort{}}
	for _, server := range servers {
		if literal, err := netip.ParseAddrPort(server); err == nil {
			r.known[server] = []netip.AddrPort{netip.AddrPortFrom(literal.Addr().Unmap().WithZone(""), literal.Port())}
		}
	}
	return r
}

func (r *resolver) resolve(ctx context.Context, server string) ([]netip.AddrPort, error) {
	host, portText, err := net.SplitHostPort(server)
	if err != nil {
		return nil, fmt.Errorf("read server address: %w", err)
	}
	port, err := net.DefaultResolver.LookupPort(ctx, "tcp", portText)
	if err != nil {
		return nil, fmt.Errorf("read server port: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	addresses, err := r.lookup(ctx, "ip", host)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		if known := r.known[server]; known != nil {
			return known, nil
		}
		return nil, fmt.Errorf("resolve server: %w", err)
	}
	var found []netip.AddrPort
	for _, address := range addresses {
		found = append(found, netip.AddrPortFrom(address.Unmap(), uint16(port))) //nolint:gosec // LookupPort returns a port
	}
	r.known[server] = found
	return found, nil
}

// all returns the addresses of every server.
func (r *resolver) all() []netip.AddrPort {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []netip.AddrPort
	for _, addresses := range r.known {
		all = append(all, addresses...)
	}
	slices.SortFunc(all, netip.AddrPort.Compare)
	return slices.Compact(all)
}

// dial connects to the first address that answers.
func dial(ctx context.Context, addresses []netip.AddrPort) (net.Conn, error) {
	dialer := net.Dialer{Timeout: dialTimeout, Control: limitSilence}
	var errs []error
	for _, address := range addresses {
		conn, err := dialer.DialContext(ctx, "tcp", address.String())
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func limitSilence(_, _ string, raw syscall.RawConn) error {
	var optionErr error
	err := raw.Control(func(fd uintptr) {
		optionErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(silenceTimeout.Milliseconds())) //nolint:gosec // a descriptor
	})
	return errors.Join(err, optionErr)
}
