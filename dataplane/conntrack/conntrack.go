// Package conntrack cuts connections that are no longer allowed after a change of the rules. The rule
// sets before and after come in, with the names of the addresses that connections go to; what comes out is
// a label on the kernel's entries of those connections, by which the packet filter has each further packet
// judged like that of a new one. Nothing else of the table is touched: not what others open to a workload,
// not what no policy may stop, not what is as allowed as it was.
package conntrack

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/dataplane/enforce"
	"github.com/nameward/nameward/dataplane/observe"
)

// Names returns the names that addresses have or ever had.
type Names func(addresses map[netip.Addr]bool) (map[netip.Addr]observe.Names, error)

// Config is what a Conntrack needs to know.
type Config struct {
	Names Names
	// Accepts: connections that a policy allowed pass the node's other rules. Of those that no policy selects
	// any longer that ends.
	Accepts bool
}

// Conntrack is the kernel's table of connections. It is safe for concurrent use.
type Conntrack struct {
	cfg Config

	mu                 sync.Mutex // guards all below
	resolvers, servers map[netip.AddrPort]bool

	clean atomic.Bool // no connection was cut, or none of those is left
}

// New returns the table of the network namespace in which Cut is called.
func New(cfg Config) *Conntrack { return &Conntrack{cfg: cfg} }

// SetEndpoints says which resolvers are trusted and which policy servers the node may always reach:
// connections to them are never cut.
func (c *Conntrack) SetEndpoints(resolvers, servers []netip.AddrPort) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resolvers, c.servers = endpoints(resolvers), endpoints(servers)
}

func endpoints(list []netip.AddrPort) map[netip.AddrPort]bool {
	set := make(map[netip.AddrPort]bool, len(list))
	for _, e := range list {
		set[netip.AddrPortFrom(e.Addr().Unmap().WithZone(""), e.Port())] = true
	}
	return set
}

// Cut sees to it that connections that one of before allowed and after denies are judged like new ones.
func (c *Conntrack) Cut(ctx context.Context, before []*ruleset.RuleSet, after *ruleset.RuleSet) (enforce.CutCount, error) {
	change := newChange(before, after)
	if len(change.before) == 0 && c.clean.Load() && !c.cfg.Accepts {
		return enforce.CutCount{}, nil
	}
	settle()
	if err := ctx.Err(); err != nil {
		return enforce.CutCount{}, err //nolint:wrapcheck // the caller's own
	}
	s, err := c.newScan(change)
	if err != nil {
		return enforce.CutCount{}, err
	}
	defer s.close()
	if err := s.find(ctx); err != nil {
		return s.count, err
	}
	err = s.act(ctx)
	c.clean.Store(err == nil && s.left == 0 && s.count.Cut == 0)
	return s.count, err
}

const membarrierGlobal = 1 // MEMBARRIER_CMD_GLOBAL: waits for an RCU grace period

// settle waits until each packet that was judged by the rules before is in the table: between the two no
// CPU rests. Where the kernel refuses that, the listing itself takes longer than a packet.
func settle() { _, _, _ = unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0) }

// neverCut reports whether no policy may stop what a connection is.
func (c *Conntrack) neverCut(t tuple, local bool) bool {
	const dhcpServer, dhcpClient, dhcp6Client, dhcp6Server = 67, 68, 546, 547
	from, to := t.source.Port(), t.destination.Port()
	if t.protocol == unix.IPPROTO_UDP {
		// Of one behind the node to one host a policy may: a client of its link is answered, or asks all on it.
		if v4 := t.destination.Addr().Is4(); local && (v4 && from == dhcpClient && to == dhcpServer || !v4 && from == dhcp6Client && to == dhcp6Server) {
			return true
		}
	}
	if t.protocol != unix.IPPROTO_UDP && t.protocol != unix.IPPROTO_TCP {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.resolvers[t.destination] || local && t.protocol == unix.IPPROTO_TCP && c.servers[t.destination]
}

// errIncomplete says that a part could not be done.
var errIncomplete = errors.New("connections that may no longer be allowed are still open")

func incomplete(faults uint64, first error) error {
	return fmt.Errorf("%w: %d of them: %w", errIncomplete, faults, first)
}
