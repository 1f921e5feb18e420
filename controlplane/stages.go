package controlplane

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/reflection"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	peerv1 "github.com/nameward/nameward/api/nameward/peer/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/controlplane/adminserver"
	"github.com/nameward/nameward/controlplane/ingest"
	"github.com/nameward/nameward/controlplane/peer"
	"github.com/nameward/nameward/controlplane/publish"
	"github.com/nameward/nameward/controlplane/storage/etcd"
	"github.com/nameward/nameward/controlplane/store"
	"github.com/nameward/nameward/controlplane/syncserver"
)

// stages are those between the storage and the API.
type stages struct {
	store     *store.Store
	mappings  *ingest.Table
	flows     *ingest.Flows
	publisher *publish.Publisher
	agents    *syncserver.Server
	requests  *requests
	ready     *atomic.Bool
	// peers and shared are nil where there is one server.
	peers  *peer.Peers
	shared *etcd.Backend
}

func newStages(cfg Config, s *store.Store, backend backend, security *security, log *slog.Logger) stages {
	made := stages{
		store: s, mappings: ingest.New(cfg.MaxMappings), flows: ingest.NewFlows(cfg.MaxFlowEvents),
		publisher: publish.New(s), requests: newRequests(),
	}
	made.agents = syncserver.New(s, made.publisher, made.mappings, made.flows, cfg.DrainTime, log.With("component", "syncserver"))
	made.ready = new(atomic.Bool)
	made.ready.Store(true)
	if made.shared = backend.shared; made.shared != nil {
		made.peers = peer.New(peer.Config{
			Directory: made.shared, Advertise: cfg.advertised(), Store: s, Mappings: made.mappings, Flows: made.flows,
			Fresh:       func() bool { return made.shared.Stale() < freshTime && !made.agents.Draining() },
			DialOptions: []grpc.DialOption{grpc.WithTransportCredentials(security.peers())}, Log: log.With("component", "peers"),
		})
		made.peers.Join(made.agents)
		made.agents.Join(made.peers)
	}
	return made
}

// loops returns what runs as long as the server does.
func (s stages) loops(healthServer *health.Server, log *slog.Logger) []func(context.Context) error {
	loops := []func(context.Context) error{s.publisher.Run, s.mappings.Run, s.flows.Run, s.agents.Run}
	if s.shared == nil {
		return loops
	}
	judge := readiness{storage: s.shared, peers: s.peers, agents: s.agents, health: healthServer, log: log.With("component", "readiness"), ready: s.ready}
	return append(loops, s.follow, s.peers.Run, judge.run)
}

// follow takes in what other servers commit.
func (s stages) follow(ctx context.Context) error {
	return s.store.Follow(ctx, s.shared, func(id node.ID, n *store.Node) { //nolint:wrapcheck // says what it did
		s.agents.NodeChanged(id, n)
		s.peers.NodeChanged(id, n)
	})
}

// server returns what serves every service, and their health. When stopping closes, its streams end, but for those of
// agents, which are asked to leave, and those of other servers, which are told of that until left closes.
func (s stages) server(security *security, tracing *tracing, keeping *keeping, stopping, left <-chan struct{}, log *slog.Logger) (*grpc.Server, *health.Server, error) {
	validator, err := adminserver.NewValidator(log)
	if err != nil {
		return nil, nil, fmt.Errorf("make validator: %w", err)
	}
	server := newGRPCServer(security, s.agents, s.requests, keeping.guard, validator, adminserver.NewFresh(s.store, log), tracing)
	nodes := adminserver.NewNodeService(s.store, s.mappings, s.flows, s.agents, log, stopping)
	observations := adminserver.NewObservationService(s.store, s.mappings, s.flows, log, stopping)
	if s.peers != nil {
		nodes, observations = nodes.Among(s.peers), observations.Among(s.peers)
		peerv1.RegisterRelayServiceServer(server, peer.NewService(s.peers, left))
	}
	namewardv1.RegisterPolicyServiceServer(server, adminserver.NewPolicyService(s.store, log, stopping))
	namewardv1.RegisterDomainSetServiceServer(server, adminserver.NewDomainSetService(s.store, log))
	namewardv1.RegisterNodeServiceServer(server, nodes)
	namewardv1.RegisterObservationServiceServer(server, observations)
	namewardv1.RegisterAuditServiceServer(server, adminserver.NewAuditService(keeping.audit, log))
	agentv1.RegisterSyncServiceServer(server, s.agents)
	healthServer := registerHealth(server)
	reflection.Register(server)
	return server, healthServer, nil
}

func (s stages) collectors(cfg Config) []prometheus.Collector {
	var ofPeers []prometheus.Collector
	if s.peers != nil {
		ofPeers = s.peers.Collectors()
	}
	return slices.Concat(
		ofPeers, []prometheus.Collector{readyCollector(func() bool { return s.ready.Load() && !s.agents.Draining() })}, s.requests.collectors(), storeCollectors(s.store), mappingCollectors(cfg, s.mappings), flowCollectors(cfg, s.flows),
		s.publisher.Collectors(), s.agents.Collectors(),
	)
}
