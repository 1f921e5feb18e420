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

var (
	errTooSlow  = status.Error(codes.ResourceExhausted, "the other server is too slow: it begins anew")
	errStopping = status.Error(codes.Unavailable, "server is stopping")
)

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
	mappings   *ingest.Watch
	flows      *ingest.FlowWatch
	// changed closes when a node changes, gathered has an element when such changes are to be told.
	changed  <-chan struct{}
	gathered <-chan time.Time
	interval time.Duration
	// told are the nodes as they were told.
	told map[node.ID]*store.Node
	// begun says that what was known when the stream began has been told.
	begun atomic.Bool
}

func (r *relay) run(ctx context.Context, stopping <-chan struct{}) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-stopping:
			cancel(errStopping)
		case <-ctx.Done():
		}
	}()
	// The watches begin before anything is told, so that no change falls between.
	r.mappings = r.peers.cfg.Mappings.WatchAhead(ingest.Filter{Of: r.tellsOf}, time.Now(), relayAhead)
	defer r.mappings.Close()
	r.flows = r.peers.cfg.Flows.WatchOf(r.tellsOf, relayAhead)
	defer r.flows.Close()
	nodes, changed := r.peers.cfg.Store.Nodes()
	r.changed, r.interval = changed, nodesInterval
	if err := r.begin(nodes); err != nil {
		return err
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		response, err := r.next(ctx, beat.C)
		if err != nil {
			return err
		}
		if response == nil {
			continue
		}
		if err := r.tell(response); err != nil {
			return err
		}
	}
}

// next waits for something to tell; nil for nothing yet.
func (r *relay) next(ctx context.Context, beat <-chan time.Time) (*peerv1.RelayResponse, error) {
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-r.changed:
		r.changed, r.gathered = nil, time.After(r.interval)
		return nil, nil
	case <-r.gathered:
		return r.changedNodes(), nil
	case change, ok := <-r.mappings.Changes():
		return changedMappings(change, ok, r.mappings.Changes())
	case e, ok := <-r.flows.Changes():
		return changedFlows(e, ok, r.flows.Changes())
	case refused := <-r.subscriber.refused:
		return &peerv1.RelayResponse{Refused: []*peerv1.RefusedAgent{refused}}, nil
	case <-beat:
		return &peerv1.RelayResponse{}, nil
	}
}

// changedNodes returns the nodes of this server that are other than they were told; nil for none.
func (r *relay) changedNodes() *peerv1.RelayResponse {
	began := time.Now()
	response := &peerv1.RelayResponse{}
	var nodes []*store.Node
	nodes, r.changed = r.peers.cfg.Store.Nodes()
	if more := r.addNodes(response, nodes, r.peers.isOwn); more {
		r.changed, r.gathered = nil, time.After(0)
		return response
	}
	r.interval = max(nodesInterval, nodesPart*time.Since(began))
	if len(response.GetNodes()) == 0 {
		return nil
	}
	return response
}

// tell sends a response with how this server does.
func (r *relay) tell(response *peerv1.RelayResponse) error {
	response.Fresh = r.peers.cfg.Fresh()
	return r.send(response) //nolint:wrapcheck // of the stream
}

// begin tells all that is known of the nodes of this server, and of those that no living server speaks for.
func (r *relay) begin(nodes []*store.Node) error {
	mappings, flows := r.mappings, r.flows
	for more := true; more; {
		response := &peerv1.RelayResponse{ServerId: r.peers.cfg.Directory.ID()}
		more = r.addNodes(response, nodes, r.peers.tells)
		for _, told := range response.GetNodes() {
			if told.GetServerId() == response.GetServerId() && told.GetNode().GetStatus().GetConnected() {
				response.Begun = append(response.Begun, told.GetNode().GetName())
			}
		}
		if err := r.tell(response); err != nil {
			return err
		}
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
	r.begun.Store(true)
	mappings.Live, flows.Known = nil, nil // not to be held as long as the stream lives
	return r.tell(&peerv1.RelayResponse{Synced: true})
}

// addNodes adds the nodes that were not told as they are; true when there are more than a response has.
func (r *relay) addNodes(response *peerv1.RelayResponse, nodes []*store.Node, which func(*store.Node) bool) (more bool) {
	for _, n := range nodes {
		if r.told[n.ID] == n || !which(n) { // nodes are replaced, never edited
			continue
		}
		if len(response.GetNodes()) == relayAtOnce {
			return true
		}
		r.told[n.ID] = n
		response.Nodes = append(response.Nodes, writeNode(n))
	}
	return false
}

// changedMappings returns a change and those that wait behind it. The channel is closed when some were lost.
func changedMappings(change ingest.Change, ok bool, more <-chan ingest.Change) (*peerv1.RelayResponse, error) {
	response := &peerv1.RelayResponse{}
	for now := time.Now(); ok; {
		switch {
		case !change.Ended:
			response.Mappings = append(response.Mappings, change.Mapping.Message())
		case change.Mapping.Expires.After(now):
			// Those that expired expire everywhere. What comes behind may be of the same mapping.
			response.EndedMappings = append(response.EndedMappings, change.Mapping.Message())
			return response, nil
		}
		if len(response.GetMappings()) >= relayAtOnce {
			return response, nil
		}
		select {
		case change, ok = <-more:
		default:
			return response, nil
		}
	}
	return nil, errTooSlow
}

// changedFlows does the same for flow events.
func changedFlows(e *ingest.FlowEvent, ok bool, more <-chan *ingest.FlowEvent) (*peerv1.RelayResponse, error) {
	response := &peerv1.RelayResponse{}
	for ok {
		response.FlowEvents = append(response.FlowEvents, writeFlowEvent(e))
		if len(response.GetFlowEvents()) >= relayAtOnce {
			return response, nil
		}
		select {
		case e, ok = <-more:
		default:
			return response, nil
		}
	}
	return nil, errTooSlow
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
