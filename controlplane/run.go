package controlplane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/controlplane/adminserver"
	"github.com/nameward/nameward/controlplane/ingest"
	"github.com/nameward/nameward/controlplane/publish"
	"github.com/nameward/nameward/controlplane/storage/bolt"
	"github.com/nameward/nameward/controlplane/store"
	"github.com/nameward/nameward/controlplane/syncserver"
)

const (
	// maxMessage admits a policy of 100,000 patterns, far over the 4 MiB of gRPC's default.
	maxMessage = 64 << 20
	// Windows of a fixed size: gRPC would otherwise send pings to find a good one, for each node.
	streamWindow, connectionWindow = 1 << 20, 2 << 20
	// A connection that is silent for so long is asked whether it lives. The answer has its time: a node
	// that is short of CPU must not be taken for dead.
	keepaliveTime, keepaliveTimeout = 10 * time.Second, 10 * time.Second
	// Clients may ping so often at most.
	keepaliveMinTime = 5 * time.Second
	handshakeTimeout = 10 * time.Second
	// stopTimeout is what requests get to end after the agents were asked to leave.
	stopTimeout = 5 * time.Second
)

// Run runs the policy server until ctx ends, then lets agents and clients leave. The configuration must be
// valid.
func Run(ctx context.Context, cfg Config, log *slog.Logger) (err error) {
	backend, err := bolt.Open(cfg.DataDir)
	if err != nil {
		return fmt.Errorf("open storage: %w", err)
	}
	defer func() { err = errors.Join(err, backend.Close()) }()
	policies, err := store.Open(ctx, backend)
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	log.Info("store opened", "store_id", policies.ID(), "revision", policies.Revision())

	stopping := make(chan struct{})
	adminLog := log.With("component", "adminserver")
	mappings := ingest.New(cfg.MaxMappings)
	flows := ingest.NewFlows(cfg.MaxFlowEvents)
	publisher := publish.New(policies)
	agents := syncserver.New(policies, publisher, mappings, flows, log.With("component", "syncserver"))
	requests := newRequests()
	validator, err := adminserver.NewValidator(adminLog)
	if err != nil {
		return fmt.Errorf("make validator: %w", err)
	}
	tracing, err := newTracing(ctx, cfg)
	if err != nil {
		return err
	}
	if tracing != nil {
		defer stopTracing(ctx, tracing, log)
	}
	server := newGRPCServer(requests, validator, tracing)
	registerRules(server, policies, adminLog, stopping)
	namewardv1.RegisterNodeServiceServer(server, adminserver.NewNodeService(policies, mappings, flows, agents, adminLog, stopping))
	namewardv1.RegisterObservationServiceServer(server, adminserver.NewObservationService(policies, mappings, flows, adminLog, stopping))
	agentv1.RegisterSyncServiceServer(server, agents)
	healthServer := registerHealth(server)
	reflection.Register(server)

	listeners, err := listen(ctx, cfg.Listen, cfg.MetricsListen)
	if err != nil {
		return err
	}
	backups, err := listenForBackups(ctx, cfg.DataDir, backend, log.With("component", "backup"))
	if err != nil {
		return err
	}
	api := &connections{Listener: listeners[0]}
	registry := newRegistry(slices.Concat(
		requests.collectors(), api.collectors(), backend.Collectors(), storeCollectors(policies),
		mappingCollectors(cfg, mappings), flowCollectors(cfg, flows), publisher.Collectors(), agents.Collectors(),
	)...)
	// The loops outlive ctx by what it takes to let the agents leave.
	g, groupCtx := errgroup.WithContext(context.WithoutCancel(ctx))
	loops, stopLoops := context.WithCancel(groupCtx)
	defer stopLoops()
	for _, run := range []func(context.Context) error{publisher.Run, mappings.Run, flows.Run, agents.Run} {
		g.Go(func() error { return run(loops) })
	}
	g.Go(func() error { return serve(server, api, log) })
	g.Go(func() error { return backups.run(loops) })
	if len(listeners) > 1 {
		g.Go(func() error {
			return serveMetrics(loops, listeners[1], registry, cfg.Pprof, log.With("component", "metrics"))
		})
	}
	g.Go(func() error {
		select {
		case <-ctx.Done():
		case <-groupCtx.Done():
		}
		log.Info("stopping")
		healthServer.Shutdown()
		close(stopping)
		agents.Drain()
		stop(server, log)
		stopLoops()
		return nil
	})
	return g.Wait() //nolint:wrapcheck // each says what it did
}

func newGRPCServer(requests *requests, validator *adminserver.Validator, tracing *sdktrace.TracerProvider) *grpc.Server {
	options := []grpc.ServerOption{
		grpc.ForceServerCodecV2(syncserver.Codec()),
		grpc.ChainUnaryInterceptor(requests.unary, validator.Unary),
		grpc.ChainStreamInterceptor(requests.stream, validator.Stream),
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
		grpc.StaticStreamWindowSize(streamWindow), grpc.StaticConnWindowSize(connectionWindow),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveMinTime, PermitWithoutStream: true}),
	}
	if tracing != nil {
		options = append(options, tracingOption(tracing))
	}
	return grpc.NewServer(options...)
}

// registerRules serves what rule sets are made of.
func registerRules(server *grpc.Server, s *store.Store, log *slog.Logger, stopping <-chan struct{}) {
	namewardv1.RegisterPolicyServiceServer(server, adminserver.NewPolicyService(s, log, stopping))
	namewardv1.RegisterDomainSetServiceServer(server, adminserver.NewDomainSetService(s, log))
}

// registerHealth serves health: every service registered so far is said to be served.
func registerHealth(server *grpc.Server) *health.Server {
	healthServer := health.NewServer()
	for service := range server.GetServiceInfo() {
		healthServer.SetServingStatus(service, healthv1.HealthCheckResponse_SERVING)
	}
	healthv1.RegisterHealthServer(server, healthServer)
	return healthServer
}

// listen opens the addresses that are set, all or none.
func listen(ctx context.Context, addresses ...string) ([]net.Listener, error) {
	var listeners []net.Listener
	for _, address := range addresses {
		if address == "" {
			continue
		}
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
		if err != nil {
			for _, open := range listeners {
				err = errors.Join(err, open.Close())
			}
			return nil, fmt.Errorf("listen: %w", err)
		}
		listeners = append(listeners, listener)
	}
	return listeners, nil
}

func serve(server *grpc.Server, listener net.Listener, log *slog.Logger) error {
	log.Info("listening", "address", listener.Addr().String())
	// Stopped before it began is stopped too.
	if err := server.Serve(listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// stop lets requests end, and ends those that do not.
func stop(server *grpc.Server, log *slog.Logger) {
	timer := time.AfterFunc(stopTimeout, func() {
		log.Warn("requests cut off")
		server.Stop()
	})
	defer timer.Stop()
	server.GracefulStop()
}
