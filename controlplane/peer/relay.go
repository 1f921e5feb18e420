package peer

import (
	"context"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	peerv1 "github.com/nameward/nameward/api/nameward/peer/v1"
	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/controlplane/ingest"
	"github.com/nameward/nameward/controlplane/store"
)

const (
	// relayAtOnce bounds a response.
	relayAtOnce = 1000
	// relayAhead is how many changes another server may be behind.
	relayAhead = 1 << 17
	// Changes of nodes gather for so long, and for a part of the time that it takes to go through them.
	nodesInterval = 50 * time.Millisecond
	nodesPart     = 10
)

var errTooSlow = status.Error(codes.ResourceExhausted, "the other server is too slow: it begins anew")

// Service serves nameward.peer.v1.RelayService. When stopping closes, its streams end.
type Service struct {
	peerv1.UnimplementedRelayServiceServer

	peers    *Peers
	stopping <-chan struct{}
}

// NewService returns the service.
func NewService(p *Peers, stopping <-chan struct{}) *Service {
	return &Service{peers: p, stopping: stopping}
}

// subscriber is another server that is told of what happens here.
type subscriber struct {
	refused chan *peerv1.RefusedAgent
}

// Refused tells the others of an agent that was refused because one of them has its node.
func (p *Peers) Refused(id node.ID, instance, agent string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for s := range p.subscribers {
		select {
		case s.refused <- &peerv1.RefusedAgent{Node: id.ResourceName(), InstanceId: instance, Agent: agent}:
		default: // one of many alike
		}
	}
}

// Relay tells another server of the nodes of this one.
func (s *Service) Relay(request *peerv1.RelayRequest, stream grpc.ServerStreamingServer[peerv1.RelayResponse]) error {
	p := s.peers
	if request.GetStoreId() != p.cfg.Store.ID() {
		return status.Errorf(codes.FailedPrecondition, "this server is on the store %s", p.cfg.Store.ID())
	}
	r := &relay{
		peers: p, send: stream.Send, told: map[node.ID]*store.Node{},
		subscriber: &subscriber{refused: make(chan *peerv1.RefusedAgent, 64)},
	}
	p.mu.Lock()
	p.subscribers[r.subscriber] = struct{}{}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.subscribers, r.subscriber)
	}()
	return r.run(stream.Context(), s.stopping)
}

// relay is one stream to another server.
type relay struct {
	peers      *Peers
	send       func(*peerv1.RelayResponse) error
	subscriber *subscriber
	// told are the nodes as they were told.
	told map[node.ID]*store.Node
	// begun says that what was known when the stream began has been told.
	begun atomic.Bool
}

func (r *relay) run(ctx context.Context, stopping <-chan struct{}) error {
	p := r.peers
	// The watches begin before anything is told, so that no change falls between.
	mappings := p.cfg.Mappings.WatchAhead(ingest.Filter{Of: r.tellsOf}, time.Now(), relayAhead)
	defer mappings.Close()
	flows := p.cfg.Flows.WatchOf(r.tellsOf, relayAhead)
	defer flows.Close()
	nodes, changed := p.cfg.Store.Nodes()
	if err := r.begin(nodes, mappings, flows); err != nil {
		return err
	}
	r.begun.Store(true)
	mappings.Live, flows.Known = nil, nil // not to be held as long as the stream lives
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	var gathered <-chan time.Time
	interval := nodesInterval
	for {
		response := &peerv1.RelayResponse{}
		select {
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case <-stopping:
			return status.Error(codes.Unavailable, "server is stopping")
		case <-changed:
			changed, gathered = nil, time.After(interval)
			continue
		case <-gathered:
			began := time.Now()
			nodes, changed = p.cfg.Store.Nodes()
			r.addNodes(response, nodes, p.isOwn)
			interval = max(nodesInterval, nodesPart*time.Since(began))
			if len(response.GetNodes()) == 0 {
				continue
			}
		case change, ok := <-mappings.Changes():
			if !ok || !addMappings(response, change, mappings.Changes()) {
				return errTooSlow
			}
		case e, ok := <-flows.Changes():
			if !ok || !p.addFlows(response, e, flows.Changes()) {
				return errTooSlow
			}
		case refused := <-r.subscriber.refused:
			response.Refused = append(response.Refused, refused)
		case <-beat.C:
		}
		if err := r.tell(response); err != nil {
			return err
		}
	}
}

// tell sends a response with how this server does.
func (r *relay) tell(response *peerv1.RelayResponse) error {
	response.Fresh = r.peers.cfg.Fresh()
	return r.send(response) //nolint:wrapcheck // of the stream
}

// begin tells all that is known of the nodes of this server, and of those that no living server speaks for.
func (r *relay) begin(nodes []*store.Node, mappings *ingest.Watch, flows *ingest.FlowWatch) error {
	first := &peerv1.RelayResponse{ServerId: r.peers.cfg.Directory.ID()}
	r.addNodes(first, nodes, r.peers.tells)
	for _, n := range nodes {
		if r.peers.isOwn(n) && n.Status.Connected {
			first.Begun = append(first.Begun, n.ID.ResourceName())
		}
	}
	if err := r.tell(first); err != nil {
		return err
	}
	for from := 0; from < len(mappings.Live); from += relayAtOnce {
		response := &peerv1.RelayResponse{}
		for _, m := range mappings.Live[from:min(from+relayAtOnce, len(mappings.Live))] {
			response.Mappings = append(response.Mappings, m.Message())
		}
		if err := r.tell(response); err != nil {
			return err
		}
	}
	for from := 0; from < len(flows.Known); from += relayAtOnce {
		response := &peerv1.RelayResponse{}
		for _, e := range flows.Known[from:min(from+relayAtOnce, len(flows.Known))] {
			response.FlowEvents = append(response.FlowEvents, writeFlowEvent(e))
		}
		if err := r.tell(response); err != nil {
			return err
		}
	}
	return r.tell(&peerv1.RelayResponse{Synced: true})
}

// addNodes adds the nodes that were not told as they are.
func (r *relay) addNodes(response *peerv1.RelayResponse, nodes []*store.Node, which func(*store.Node) bool) {
	for _, n := range nodes {
		if r.told[n.ID] != n && which(n) { // nodes are replaced, never edited
			r.told[n.ID] = n
			response.Nodes = append(response.Nodes, writeNode(n))
		}
	}
}

// addMappings adds a change and those that wait behind it; false when some were lost.
func addMappings(response *peerv1.RelayResponse, change ingest.Change, more <-chan ingest.Change) bool {
	for now := time.Now(); ; {
		switch {
		case !change.Ended:
			response.Mappings = append(response.Mappings, change.Mapping.Message())
		case change.Mapping.Expires.After(now):
			// Those that expired expire everywhere.
			response.EndedMappings = append(response.EndedMappings, change.Mapping.Message())
			return true // what comes behind may be of the same mapping
		}
		if len(response.GetMappings()) >= relayAtOnce {
			return true
		}
		var ok bool
		select {
		case change, ok = <-more:
			if !ok {
				return false
			}
		default:
			return true
		}
	}
}

// addFlows does the same for flow events.
func (p *Peers) addFlows(response *peerv1.RelayResponse, e *ingest.FlowEvent, more <-chan *ingest.FlowEvent) bool {
	for {
		response.FlowEvents = append(response.FlowEvents, writeFlowEvent(e))
		if len(response.GetFlowEvents()) >= relayAtOnce {
			return true
		}
		var ok bool
		select {
		case e, ok = <-more:
			if !ok {
				return false
			}
		default:
			return true
		}
	}
}

// isOwn reports whether this server speaks for a node.
func (p *Peers) isOwn(n *store.Node) bool { return n.Status.Claim.Server == p.cfg.Directory.ID() }

// tells reports whether a stream begins with a node: with its own, and with those that nobody speaks for.
func (p *Peers) tells(n *store.Node) bool {
	if p.isOwn(n) {
		return true
	}
	if n.Status.Claim.Server == "" {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.links[n.Status.Claim.Server] == nil
}

// tellsOf reports whether the stream tells of what a node saw. What came from another server is told at the beginning
// alone: no change goes round.
func (r *relay) tellsOf(id node.ID) bool {
	n, err := r.peers.cfg.Store.Node(id)
	return err == nil && (r.peers.isOwn(n) || !r.begun.Load() && r.peers.tells(n))
}
