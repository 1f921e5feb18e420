package peer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"

	"github.com/nameward/nameward/api/flow"
	peerv1 "github.com/nameward/nameward/api/nameward/peer/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/controlplane/ingest"
	"github.com/nameward/nameward/controlplane/storage"
	"github.com/nameward/nameward/controlplane/store"
)

const (
	retryFirst, retryLast = 100 * time.Millisecond, 2 * time.Second
	maxMessage            = 64 << 20
	windowSize            = 4 << 20
)

var errSilent = errors.New("it says nothing")

// link is what is known of another server, and the stream from it.
type link struct {
	server storage.Server
	end    context.CancelFunc

	// All below is guarded by Peers.mu.
	heard time.Time // when it said something last, or was found
	// synced says that all it knew is known here, fresh that it is up to date with the storage.
	synced, fresh bool
}

// reachable is called under Peers.mu.
func (l *link) reachable(now time.Time) bool { return l.synced && now.Sub(l.heard) < silence }

// follow takes in what a server says until ctx ends.
func (p *Peers) follow(ctx context.Context, l *link) {
	options := append([]grpc.DialOption{
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithInitialWindowSize(windowSize), grpc.WithInitialConnWindowSize(windowSize),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: silence}),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: retryFirst, Multiplier: 1.6, Jitter: 0.2, MaxDelay: retryLast}, MinConnectTimeout: silence}),
		grpc.WithNoProxy(),
	}, p.cfg.DialOptions...)
	for wait := retryFirst; ctx.Err() == nil; wait = min(2*wait, retryLast) {
		// A connection of its own each time: one that was cut without a word is not to be waited for.
		connection, err := grpc.NewClient("passthrough:///"+l.server.Advertise, options...)
		if err == nil {
			var synced bool
			synced, err = p.receive(ctx, l, peerv1.NewRelayServiceClient(connection))
			_ = connection.Close() // the stream has ended
			if synced {
				wait = retryFirst
			}
		}
		if ctx.Err() != nil {
			return
		}
		p.metrics.broken.Inc()
		p.cfg.Log.Debug("policy server not heard", "server", l.server.Advertise, "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(wait/2 + rand.N(wait/2)):
		}
	}
}

// receive takes in one stream.
func (p *Peers) receive(ctx context.Context, l *link, client peerv1.RelayServiceClient) (synced bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer func() {
		p.mu.Lock()
		l.synced = false
		p.mu.Unlock()
	}()
	self, _ := p.Self()
	watchdog := time.AfterFunc(silence, func() { cancel(errSilent) })
	defer watchdog.Stop()
	stream, err := client.Relay(ctx, &peerv1.RelayRequest{ServerId: self, StoreId: p.cfg.Store.ID()})
	if err != nil {
		return false, fmt.Errorf("ask to relay: %w", err)
	}
	var begun []node.ID
	for {
		response, err := stream.Recv()
		if err != nil {
			return synced, fmt.Errorf("receive: %w", err)
		}
		watchdog.Reset(silence)
		if id := response.GetServerId(); id != "" && id != l.server.ID {
			return synced, fmt.Errorf("another server, %s, answers at its address", id)
		}
		p.metrics.received.Inc()
		ids, err := p.take(response)
		if err != nil {
			return synced, err
		}
		begun = append(begun, ids...)
		if response.GetSynced() {
			p.cfg.Mappings.Finish(p.notHere(begun), time.Now())
			begun, synced = nil, true
			p.cfg.Log.Info("policy server heard", "server", l.server.Advertise)
		}
		p.mu.Lock()
		l.heard, l.fresh, l.synced = time.Now(), response.GetFresh(), synced
		p.mu.Unlock()
	}
}

// take takes in one response, and returns the nodes that begin with it.
func (p *Peers) take(response *peerv1.RelayResponse) (begun []node.ID, err error) {
	now := time.Now()
	statuses := map[node.ID]store.NodeStatus{}
	for _, message := range response.GetNodes() {
		id, status, err := readNode(message)
		if err != nil {
			return nil, err
		}
		statuses[id] = status
	}
	if len(statuses) > 0 {
		p.relayed(statuses)
	}
	for _, message := range response.GetRefused() {
		id, err := node.ParseResourceName(message.GetNode())
		if err != nil {
			return nil, fmt.Errorf("read refused agent: %w", err)
		}
		p.agents.RefusedElsewhere(id, message.GetInstanceId(), message.GetAgent())
	}
	for _, name := range response.GetBegun() {
		id, err := node.ParseResourceName(name)
		if err != nil {
			return nil, fmt.Errorf("read node: %w", err)
		}
		begun = append(begun, id)
	}
	begun = p.notHere(begun)
	p.cfg.Mappings.Begin(begun, now)
	if err := p.takeMappings(response.GetMappings(), false, now); err != nil {
		return nil, err
	}
	if err := p.takeMappings(response.GetEndedMappings(), true, now); err != nil {
		return nil, err
	}
	return begun, p.takeFlows(response.GetFlowEvents(), now)
}

// relayed puts what a server says of nodes in place.
func (p *Peers) relayed(statuses map[node.ID]store.NodeStatus) {
	unknown, err := p.agents.Relayed(statuses)
	if err != nil {
		p.cfg.Log.Error("status of nodes not taken", "err", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range unknown {
		p.unregistered[id] = statuses[id]
	}
}

// notHere leaves out the nodes that are connected to this server, which knows better.
func (p *Peers) notHere(ids []node.ID) (others []node.ID) {
	for _, id := range ids {
		if !p.isHere(id) {
			others = append(others, id)
		}
	}
	return others
}

func (p *Peers) isHere(id node.ID) bool {
	n, err := p.cfg.Store.Node(id)
	return err == nil && n.Status.Connected && n.Status.Claim.Server == p.cfg.Directory.ID()
}

func (p *Peers) takeMappings(messages []*namewardv1.Mapping, ended bool, now time.Time) error {
	byNode := map[node.ID][]*ingest.Mapping{}
	for _, message := range messages {
		id, err := node.ParseResourceName(message.GetNode())
		if err != nil {
			return fmt.Errorf("read mapping: %w", err)
		}
		m, err := ingest.FromProto(id, message)
		if err != nil {
			return fmt.Errorf("read mapping: %w", err)
		}
		if ended {
			m.Expires = now
		}
		byNode[id] = append(byNode[id], m)
	}
	for id, mappings := range byNode {
		if !p.isHere(id) {
			p.cfg.Mappings.Observe(id, ingest.Batch{Mappings: mappings}, now)
		}
	}
	return nil
}

func (p *Peers) takeFlows(messages []*peerv1.RelayedFlowEvent, now time.Time) error {
	events := make([]*ingest.FlowEvent, 0, len(messages))
	for _, message := range messages {
		id, err := node.ParseResourceName(message.GetFlowEvent().GetNode())
		if err != nil {
			return fmt.Errorf("read flow event: %w", err)
		}
		e, err := flow.FromProto(message.GetFlowEvent())
		if err != nil {
			return fmt.Errorf("read flow event: %w", err)
		}
		events = append(events, &ingest.FlowEvent{Node: id, Event: *e, Began: message.GetBegunTime().AsTime(), Before: message.GetBefore()})
	}
	if len(events) > 0 {
		p.cfg.Flows.Adopt(events, now)
	}
	return nil
}
