package syncserver

import (
	"context"
	"fmt"
	"maps"
	"time"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/controlplane/store"
)

// farewellTime is what it may take until a server hears that an agent has left another one: an agent that was restarted
// is not to be refused for that.
const farewellTime = time.Second

// Peers are the other servers on the same storage.
type Peers interface {
	// Self returns the id and the address of this server.
	Self() (id, address string)
	// Others returns the addresses of the other servers to which agents may go, as they are advertised.
	Others() []string
	// Speaks reports whether another server can be believed in what it said last of who is connected to it.
	Speaks(server string) bool
	// Refused tells the others of an agent that was refused because one of them has its node.
	Refused(id node.ID, instance, agent string)
}

// claim makes the session that of its node, unless another agent has it, here or at another server.
func (s *Server) claim(session *session) error {
	now := time.Now()
	if err := s.claimElsewhere(session, now); err != nil {
		return err
	}
	return s.claims.claim(session, now)
}

// claimElsewhere judges the claim by what other servers said, and numbers it.
func (s *Server) claimElsewhere(session *session, now time.Time) error {
	if s.peers == nil {
		return nil
	}
	session.number = now.UnixNano()
	held, taken := s.heldElsewhere(session)
	for deadline := now.Add(farewellTime); taken && held.Instance != session.instance && time.Now().Before(deadline); {
		time.Sleep(farewellTime / 20)
		held, taken = s.heldElsewhere(session)
	}
	session.number = max(session.number, held.Number+1)
	if !taken {
		return nil
	}
	if held.Instance == session.instance {
		session.takeovers = append(recent(held.Takeovers, now), now)
	}
	if held.Instance != session.instance || len(session.takeovers) > takeoversLimit {
		s.peers.Refused(session.id, session.instance, session.peer)
		return fmt.Errorf("%w: %s, at the server %s", errClaimed, session.id, held.Address)
	}
	return nil
}

// heldElsewhere returns the claim on the node, and whether it is that of an agent at another server.
func (s *Server) heldElsewhere(session *session) (held store.Claim, taken bool) {
	n, err := s.store.Node(session.id)
	if err != nil {
		return held, false // it is not known: nobody has it
	}
	self, _ := s.peers.Self()
	held = n.Status.Claim
	return held, n.Status.Connected && held.Server != self && s.peers.Speaks(held.Server)
}

// catchUpWith makes sure that an agent which has seen a later revision than this server is not taken back.
func (s *Server) catchUpWith(ctx context.Context, hello *agentv1.Hello) error {
	if s.peers == nil || hello.GetStoreId() != s.store.ID() {
		return nil
	}
	if hello.GetRevision() > s.store.Revision() {
		// When this has been done and the agent's is the later one still, the storage has gone back, by a restore: then
		// it is right.
		if err := s.store.Sync(ctx); err != nil {
			return fmt.Errorf("%w: the agent has revision %d: %w", errBehind, hello.GetRevision(), err)
		}
	}
	// What the store has is to be published too: it gathers changes.
	timer := time.NewTimer(publishTime)
	defer timer.Stop()
	for {
		published, changed := s.publisher.Published()
		if published >= min(hello.GetRevision(), s.store.RulesRevision()) {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		case <-timer.C:
			return fmt.Errorf("%w: the agent has revision %d", errBehind, hello.GetRevision())
		}
	}
}

// publishTime is how long an agent waits for what the store has to be published.
const publishTime = 5 * time.Second

// Relayed takes in what another server says of nodes.
func (s *Server) Relayed(statuses map[node.ID]store.NodeStatus) (unknown []node.ID, err error) {
	now := time.Now()
	changes := make(map[node.ID][]func(*store.NodeStatus), len(statuses))
	for id, theirs := range statuses {
		s.claims.relayed(id, &theirs, now)
		newest := s.wanted.newest(id)
		changes[id] = []func(*store.NodeStatus){func(mine *store.NodeStatus) {
			if !mine.YieldsTo(&theirs) {
				return
			}
			*mine = theirs
			// The other server may not have seen yet what this one has.
			if newest != nil {
				s.wanted.want(mine, newest)
			}
		}}
	}
	return s.store.UpdateNodeStatuses(maps.All(changes)) //nolint:wrapcheck // the caller says what it was for
}

// RefusedElsewhere takes note of an agent that another server refused because its node is connected here.
func (s *Server) RefusedElsewhere(id node.ID, instance, agent string) {
	s.claims.refused(id, instance, agent, time.Now())
}

// Gone says of the nodes of a server that has gone that they are not connected.
func (s *Server) Gone(server string) error {
	nodes, _ := s.store.Nodes()
	changes := map[node.ID][]func(*store.NodeStatus){}
	for _, n := range nodes {
		if n.Status.Connected && n.Status.Claim.Server == server {
			changes[n.ID] = []func(*store.NodeStatus){func(status *store.NodeStatus) {
				if status.Claim.Server == server {
					status.Connected = false
				}
			}}
		}
	}
	_, err := s.store.UpdateNodeStatuses(maps.All(changes))
	return err //nolint:wrapcheck // the caller says what it was for
}

// NodeChanged takes note of a node that another server registered or, with nil, deleted.
func (s *Server) NodeChanged(id node.ID, n *store.Node) {
	if n == nil {
		s.mappings.Forget(id)
		s.flows.Forget(id)
		s.forget(id)
		return
	}
	s.wanted.follow(id, n.Labels)
}
