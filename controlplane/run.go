package controlplane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"github.com/nameward/nameward/controlplane/access"
	"github.com/nameward/nameward/controlplane/adminserver"
	"github.com/nameward/nameward/controlplane/store"
	"github.com/nameward/nameward/controlplane/syncserver"
)

const (
	// maxMessage admits a policy of 100,000 patterns, far over the 4 MiB of gRPC's default.
	maxMessage = 64 << 20
	// maxStreams is how many calls run on a connection at once; others wait in their client. It also bounds what a
	// client makes the server begin by beginning calls and giving them up.
	maxStreams = 256
	// maxHeaders bounds the headers of a call, which are read before anybody looks at it.
	maxHeaders = 64 << 10
	// Windows of a fixed size: gRPC would otherwise send pings to find a good one, for each node.
	streamWindow, connectionWindow = 1 << 20, 2 << 20
	// A connection has such a buffer while something is read, and what agents say is short. gRPC's own is 32 KiB. By TLS
	// it has none: each connection would keep it, and TLS has one of its own from which a record is read piece by piece.
	readBuffer, readBufferTLS = 4 << 10, 0
	// A connection has such a buffer while something is written: in a fan-out, all have. gRPC's own is 32 KiB.
	writeBuffer = 8 << 10
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
	giveBack := keepSmall()
	backend, err := openBackend(cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, backend.Close()) }()
	policies, err := store.Open(ctx, backend)
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	log.Info("store opened", "store_id", policies.ID(), "revision", policies.Revision())
	keeping, err := openAccess(cfg, policies, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, keeping.close()) }()
	tracing, err := newTracing(ctx, cfg)
	if err != nil {
		return err
	}
	defer tracing.stop(ctx, log)
	security, err := newSecurity(ctx, cfg, log.With("component", "transport"))
	if err != nil {
		return err
	}
	stages := newStages(cfg, policies, backend, security, log)
	stopping, left := make(chan struct{}), make(chan struct{})
	server, healthServer, err := stages.server(security, tracing, keeping, stopping, left, log.With("component", "adminserver"))
	if err != nil {
		return err
	}
	open, err := openEndpoints(ctx, cfg, backend, log)
	if err != nil {
		return err
	}
	registry := newRegistry(slices.Concat(open.api.collectors(), backend.collectors(), keeping.collectors(), stages.collectors(cfg), security.collectors())...)
	// The loops outlive ctx by what it takes to let the agents leave.
	g, groupCtx := errgroup.WithContext(context.WithoutCancel(ctx))
	loops, stopLoops := context.WithCancel(groupCtx)
	defer stopLoops()
	for _, run := range append(stages.loops(healthServer, log), open.backups.run, keeping.roles.Run, security.run, giveBack) {
		g.Go(func() error { return run(loops) })
	}
	g.Go(func() error { return serve(server, open.api, log) })
	if open.metrics != nil {
		g.Go(func() error {
			return serveMetrics(loops, open.metrics, registry, cfg.Pprof, log.With("component", "metrics"))
		})
	}
	g.Go(func() error {
		select {
		case <-ctx.Done():
		case <-groupCtx.Done():
		}
		log.Info("stopping")
		stages.leave(healthServer, stopping, left)
		stop(server, log)
		stopLoops()
		return nil
	})
	return g.Wait() //nolint:wrapcheck // each says what it did
}

func newGRPCServer(
	security *security, agents *syncserver.Server, requests *requests, guard *access.Guard,
	validator *adminserver.Validator, fresh *adminserver.Fresh, tracing *tracing,
) *grpc.Server {
	return grpc.NewServer(append(tracing.options(),
		grpc.ForceServerCodecV2(agents.Codec()),
		grpc.Creds(guard.Credentials(security.credentials())),
		grpc.InTapHandle(agents.Tap(guard.Tap)),
		grpc.ChainUnaryInterceptor(requests.unary, guard.Unary, validator.Unary, fresh.Unary),
		grpc.ChainStreamInterceptor(requests.stream, guard.Stream, validator.Stream, fresh.Stream),
		grpc.MaxConcurrentStreams(maxStreams), grpc.MaxHeaderListSize(maxHeaders),
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
		grpc.ReadBufferSize(security.readBuffer()), grpc.WriteBufferSize(writeBuffer),
		grpc.StaticStreamWindowSize(streamWindow), grpc.StaticConnWindowSize(connectionWindow),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveMinTime, PermitWithoutStream: true}),
	)...)
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

func serve(server *grpc.Server, listener net.Listener, log *slog.Logger) error {
	log.Info("listening", "address", listener.Addr().String())
	// Stopped before it began is stopped too.
	if err := server.Serve(listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// leave has everybody go to another server.
func (s stages) leave(healthServer *health.Server, stopping, left chan<- struct{}) {
	// Nobody is to come before anybody is sent away.
	healthServer.Shutdown()
	close(stopping)
	s.agents.Drain()
	close(left)
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
