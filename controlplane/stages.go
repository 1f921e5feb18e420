package controlplane

import (
	"fmt"
	"log/slog"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/reflection"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/controlplane/adminserver"
	"github.com/nameward/nameward/controlplane/ingest"
	"github.com/nameward/nameward/controlplane/publish"
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
}

func newStages(cfg Config, s *store.Store, log *slog.Logger) stages {
	made := stages{
		store: s, mappings: ingest.New(cfg.MaxMappings), flows: ingest.NewFlows(cfg.MaxFlowEvents),
		publisher: publish.New(s), requests: newRequests(),
	}
	made.agents = syncserver.New(s, made.publisher, made.mappings, made.flows, cfg.DrainTime, log.With("component", "syncserver"))
	return made
}

// server returns what serves every service, and their health. When stopping closes, its streams end.
func (s stages) server(security *security, tracing *tracing, keeping *keeping, stopping <-chan struct{}, log *slog.Logger) (*grpc.Server, *health.Server, error) {
	validator, err := adminserver.NewValidator(log)
	if err != nil {
		return nil, nil, fmt.Errorf("make validator: %w", err)
	}
	server := newGRPCServer(security.credentials(), s.agents.Codec(), s.requests, keeping.guard, validator, tracing)
	namewardv1.RegisterPolicyServiceServer(server, adminserver.NewPolicyService(s.store, log, stopping))
	namewardv1.RegisterDomainSetServiceServer(server, adminserver.NewDomainSetService(s.store, log))
	namewardv1.RegisterNodeServiceServer(server, adminserver.NewNodeService(s.store, s.mappings, s.flows, s.agents, log, stopping))
	namewardv1.RegisterObservationServiceServer(server, adminserver.NewObservationService(s.store, s.mappings, s.flows, log, stopping))
	namewardv1.RegisterAuditServiceServer(server, adminserver.NewAuditService(keeping.audit, log))
	agentv1.RegisterSyncServiceServer(server, s.agents)
	healthServer := registerHealth(server)
	reflection.Register(server)
	return server, healthServer, nil
}

func (s stages) collectors(cfg Config) []prometheus.Collector {
	return slices.Concat(
		s.requests.collectors(), storeCollectors(s.store), mappingCollectors(cfg, s.mappings), flowCollectors(cfg, s.flows),
		s.publisher.Collectors(), s.agents.Collectors(),
	)
}
