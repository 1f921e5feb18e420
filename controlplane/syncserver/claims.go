package syncserver

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/controlplane/store"
)

// claims says which session speaks for a node: one at a time.
type claims struct {
	mu       sync.Mutex // guards all below
	sessions map[node.ID]*session
	// vacant is closed when the last session has gone, and made anew with the next.
	vacant chan struct{}
}

func newClaims() *claims {
	c := &claims{sessions: map[node.ID]*session{}, vacant: make(chan struct{})}
	close(c.vacant)
	return c
}

// claim makes s the session of its node. The same agent takes over from its former stream, which it no
// longer has or it would not ask; another one is refused as long as the first lives, which keepalive
// finds out. So is one that takes over again and again: it is a copy, of a machine that was cloned while it ran, and
// the two would drive each other out for ever.
func (c *claims) claim(s *session, now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if holder := c.sessions[s.id]; holder != nil {
		if holder.instance == s.instance {
			s.takeovers = append(recent(holder.takeovers, now), now)
		}
		if holder.instance != s.instance || len(s.takeovers) > takeoversLimit {
			holder.contested(s.peer, now)
			return fmt.Errorf("%w: %s", errClaimed, s.id)
		}
		holder.end(errReplaced)
	}
	if len(c.sessions) == 0 {
		c.vacant = make(chan struct{})
	}
	c.sessions[s.id] = s
	return nil
}

// relayed judges what another server says of the agent of a node against the session here.
func (c *claims) relayed(id node.ID, theirs *store.NodeStatus, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sessions[id]
	if s == nil || !theirs.Connected {
		return
	}
	later := theirs.Claim.Number > s.number
	switch {
	case theirs.Claim.Instance == s.instance && later:
		s.end(errReplaced)
	case theirs.Claim.Instance == s.instance:
	case later:
		s.contested(theirs.Claim.Agent, now)
	default:
		s.end(errClaimed)
	}
}

// refused notes that another server refused an agent because of the session here.
func (c *claims) refused(id node.ID, instance, agent string, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.sessions[id]; s != nil && s.instance != instance {
		s.contested(agent, now)
	}
}

// recent returns the takeovers that count.
func recent(takeovers []time.Time, now time.Time) []time.Time {
	return slices.DeleteFunc(slices.Clone(takeovers), func(at time.Time) bool { return now.Sub(at) > takeoversTime })
}

// release gives the node up, and reports whether s still spoke for it. left is called before another
// session can claim it.
func (c *claims) release(s *session, left func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sessions[s.id] != s {
		return
	}
	left()
	delete(c.sessions, s.id)
	if len(c.sessions) == 0 {
		close(c.vacant)
	}
}

// end ends the session of a node, if there is one.
func (c *claims) end(id node.ID, cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.sessions[id]; s != nil {
		s.end(cause)
	}
}

// endAll ends the sessions of all nodes.
func (c *claims) endAll(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.sessions {
		s.end(cause)
	}
}

// notify has the writers of all sessions look.
func (c *claims) notify() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.sessions {
		s.notify()
	}
}

// len returns how many nodes are connected.
func (c *claims) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.sessions)
}

// empty returns a channel that is closed when no node is connected.
func (c *claims) empty() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.vacant
}
