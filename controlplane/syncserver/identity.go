package syncserver

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/nameward/nameward/api/identity"
	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/api/transport"
)

// authenticate refuses an agent that says it is another node than its certificate does.
func (s *session) authenticate(ctx context.Context, says node.ID) error {
	caller, err := transport.CallerFrom(ctx)
	if err == nil && !caller.Anonymous() {
		err = speaksFor(caller.ID, says)
	}
	if err != nil {
		s.server.metrics.refusedIdentities.Inc()
		s.log.Warn("agent refused, it is not the node that it says", "node", says.String(), "identity", caller.ID.String(), "err", err)
		return fmt.Errorf("%w: %w", errNotTheNode, err)
	}
	if caller.Certificate != nil {
		s.expires.Store(caller.Certificate.NotAfter.Unix())
	}
	return nil
}

// speaksFor returns why somebody is not a node, nil when it is.
func speaksFor(id identity.ID, says node.ID) error {
	role, name, ok := id.Named()
	switch {
	case !ok || role != identity.Node:
		return fmt.Errorf("the certificate is of %s, which is no node, and the hello is of node %s", id, says)
	case name != says.String():
		return fmt.Errorf("the certificate is of %s, and the hello of node %s", id, says)
	}
	return nil
}

// certificateExpiry returns when the agent's certificate ends; zero for never, or none.
func (s *session) certificateExpiry() time.Time {
	if seconds := s.expires.Load(); seconds != 0 {
		return time.Unix(seconds, 0)
	}
	return time.Time{}
}

// firstExpiry returns when the first certificate of the nodes that are connected ends, in Unix seconds; +Inf for none.
func (c *claims) firstExpiry() float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := math.Inf(1)
	for _, s := range c.sessions {
		if seconds := s.expires.Load(); seconds != 0 {
			first = min(first, float64(seconds))
		}
	}
	return first
}
