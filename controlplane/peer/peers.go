// Package peer has the policy servers on one storage tell each other what their nodes say: how the nodes do, their
// mappings and flow events, and which agents claim them. None of that is in the storage, and every server holds all of
// it: each answers for the whole fleet from its own memory, also about the nodes of a server that has died.
package peer

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/controlplane/ingest"
	"github.com/nameward/nameward/controlplane/storage"
	"github.com/nameward/nameward/controlplane/store"
)

const (
	// heartbeat is how often a server says something at least, silence after how long it is unreachable.
	heartbeat = time.Second
	silence   = 5 * time.Second
	// beliefTime is for how long a server that is not heard speaks for its nodes.
	beliefTime = 20 * time.Second
	lookEvery  = 250 * time.Millisecond
)

// Agents is what knows the agents that are connected here.
type Agents interface {
	// Relayed takes in what another server says of nodes, and returns those that are not registered.
	Relayed(statuses map[node.ID]store.NodeStatus) (unknown []node.ID, err error)
	// RefusedElsewhere takes note of an agent that another server refused.
	RefusedElsewhere(id node.ID, instance, agent string)
	// Gone says that a server is no more.
	Gone(server string) error
}

// Config is what the servers tell each other about, and how they reach each other.
type Config struct {
	Directory storage.Directory
	// Advertise is the address of this server.
	Advertise string
	Store     *store.Store
	Mappings  *ingest.Table
	Flows     *ingest.Flows
	// Fresh reports whether this server knows that it is up to date, and is not about to stop.
	Fresh func() bool
	// DialOptions are the credentials.
	DialOptions []grpc.DialOption
	Log         *slog.Logger
}

// Peers are the other servers.
type Peers struct {
	cfg     Config
	agents  Agents
	metrics metrics

	mu    sync.Mutex // guards all below
	links map[string]*link
	// unreachable are the addresses of the servers that are not heard; changed closes when they are others.
	unreachable []string
	changed     chan struct{}
	subscribers map[*subscriber]struct{}
	// unregistered is what was said of nodes whose registration has not come yet.
	unregistered map[node.ID]store.NodeStatus
}

// New makes the peers of a server. Join must be called before Run.
func New(cfg Config) *Peers {
	p := &Peers{
		cfg: cfg, links: map[string]*link{}, changed: make(chan struct{}),
		subscribers: map[*subscriber]struct{}{}, unregistered: map[node.ID]store.NodeStatus{},
	}
	p.metrics = newMetrics(p)
	return p
}

// Join tells of the agents that are connected here.
func (p *Peers) Join(agents Agents) { p.agents = agents }

// Self returns the id and the address of this server.
func (p *Peers) Self() (id, address string) { return p.cfg.Directory.ID(), p.cfg.Advertise }

// Run keeps a link to every other server until ctx ends.
func (p *Peers) Run(ctx context.Context) error {
	var links sync.WaitGroup
	defer links.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		servers, _ := p.cfg.Directory.Servers()
		for _, l := range p.look(servers, time.Now()) {
			linkCtx, end := context.WithCancel(ctx)
			l.end = end
			links.Go(func() { p.follow(linkCtx, l) })
		}
		for _, gone := range p.leave(servers, time.Now()) {
			p.cfg.Log.Info("policy server gone", "server", gone.server.Advertise)
			gone.end()
			if err := p.agents.Gone(gone.server.ID); err != nil {
				return fmt.Errorf("forget server: %w", err)
			}
		}
		p.judge(time.Now())
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// look returns the links to servers that are new.
func (p *Peers) look(servers []storage.Server, now time.Time) (begun []*link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, server := range servers {
		if p.links[server.ID] == nil {
			l := &link{server: server, heard: now}
			p.links[server.ID] = l
			begun = append(begun, l)
		}
	}
	return begun
}

// leave removes the links to servers that are neither registered nor heard.
func (p *Peers) leave(servers []storage.Server, now time.Time) (gone []*link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, l := range p.links {
		registered := slices.ContainsFunc(servers, func(s storage.Server) bool { return s.ID == id })
		if !registered && (!l.synced || now.Sub(l.heard) > silence) {
			delete(p.links, id)
			gone = append(gone, l)
		}
	}
	return gone
}

// judge says which servers are unreachable.
func (p *Peers) judge(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var unreachable []string
	for _, l := range p.links {
		if !l.reachable(now) {
			unreachable = append(unreachable, l.server.Advertise)
		}
	}
	slices.Sort(unreachable)
	unreachable = slices.Compact(unreachable)
	if slices.Equal(unreachable, p.unreachable) {
		return
	}
	p.cfg.Log.Info("policy servers that cannot be reached", "servers", unreachable)
	p.unreachable = unreachable
	close(p.changed)
	p.changed = make(chan struct{})
}

// Unreachable returns the addresses of the servers whose nodes may have done what is not known here, in order, and a
// channel that closes when they are others.
func (p *Peers) Unreachable() (addresses []string, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.unreachable, p.changed
}

// Speaks reports whether a server can be believed in what it said last.
func (p *Peers) Speaks(server string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.links[server]
	return l != nil && time.Since(l.heard) < beliefTime
}

// Others returns the addresses of the other servers that are heard and say that they are up to date, in order.
func (p *Peers) Others() (addresses []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.links {
		if l.fresh && l.reachable(time.Now()) {
			addresses = append(addresses, l.server.Advertise)
		}
	}
	slices.Sort(addresses)
	return addresses
}

// Elsewhere says how the other servers do: whether one of them says that it is up to date, and whether there are
// others and none is reachable.
func (p *Peers) Elsewhere() (fresh, alone bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	alone = len(p.links) > 0
	for _, l := range p.links {
		reachable := l.reachable(time.Now())
		fresh = fresh || reachable && l.fresh
		alone = alone && !reachable
	}
	return fresh, alone
}

// NodeChanged takes note of a node that another server registered.
func (p *Peers) NodeChanged(id node.ID, n *store.Node) {
	p.mu.Lock()
	status, ok := p.unregistered[id]
	delete(p.unregistered, id)
	p.mu.Unlock()
	if ok && n != nil {
		p.relayed(map[node.ID]store.NodeStatus{id: status})
	}
}

// Collectors returns the metrics.
func (p *Peers) Collectors() []prometheus.Collector { return p.metrics.collectors() }
