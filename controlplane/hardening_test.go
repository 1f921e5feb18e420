package controlplane

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/nameward/nameward/controlplane/access"
	"github.com/nameward/nameward/controlplane/storage/bolt"
	"github.com/nameward/nameward/controlplane/storage/etcd"
	"github.com/nameward/nameward/controlplane/store"
)

// serveStages serves the whole API, without the loops behind it, until the test ends.
func serveStages(t *testing.T) (*grpc.Server, *grpc.ClientConn) {
	t.Helper()
	file, err := bolt.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	cfg, log := DefaultConfig(), slog.New(slog.DiscardHandler)
	cfg.DataDir, cfg.Insecure = t.TempDir(), true
	keeping, err := openAccess(cfg, s, log)
	if err != nil {
		t.Fatal(err)
	}
	tracing, err := newTracing(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	security, err := newSecurity(t.Context(), cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	// Of several servers, so that what they tell each other is served too.
	cluster, err := etcd.Open(etcd.Config{Endpoints: []string{"127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cluster.Close() })
	server, _, err := newStages(cfg, s, backend{Backend: file, shared: cluster}, security, log).server(security, tracing, keeping, make(chan struct{}), make(chan struct{}), log)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(newConnections(listener, 1000, log)) }()
	connection, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = connection.Close()
		server.Stop()
		<-served
		tracing.stop(context.Background(), log)
		if err := keeping.close(); err != nil {
			t.Error(err)
		}
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	})
	return server, connection
}

// Every method that the server serves has its role and its limit, and there is no role for a method that it does not.
func TestEveryMethodHasItsRoleAndItsLimit(t *testing.T) {
	server, _ := serveStages(t)
	needs, limits := access.Methods(), access.Limits()
	for name, service := range server.GetServiceInfo() {
		for _, m := range service.Methods {
			method := "/" + name + "/" + m.Name
			if _, listed := needs[method]; !listed {
				t.Errorf("%s has no role", method)
			}
			if _, limited := limits[method]; !limited {
				t.Errorf("%s has no limit", method)
			}
			delete(needs, method)
		}
	}
	for method := range needs {
		t.Errorf("%s has a role, and nobody serves it", method)
	}
}

// The headers of a call are bounded, and so is how many calls a connection has at once.
func TestHeadersAndStreamsAreBounded(t *testing.T) {
	_, connection := serveStages(t)
	client := healthv1.NewHealthClient(connection)
	large := metadata.AppendToOutgoingContext(t.Context(), "large", strings.Repeat("x", maxHeaders))
	if _, err := client.Check(t.Context(), &healthv1.HealthCheckRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Check(large, &healthv1.HealthCheckRequest{}); status.Code(err) == codes.OK {
		t.Error("headers of 64 KiB were taken")
	}
	watch := func(ctx context.Context) error {
		stream, err := client.Watch(ctx, &healthv1.HealthCheckRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		return err
	}
	first, end := context.WithCancel(t.Context())
	defer end()
	for i := range maxStreams {
		ctx := t.Context()
		if i == 0 {
			ctx = first
		}
		if err := watch(ctx); err != nil {
			t.Fatalf("stream %d: %v", i+1, err)
		}
	}
	began := make(chan error, 1)
	go func() { began <- watch(t.Context()) }()
	select {
	case err := <-began:
		t.Errorf("one more stream than may be began: %v", err)
	default:
	}
	end()
	if err := <-began; err != nil {
		t.Errorf("with a place for it: %v", err)
	}
}

// Connections over the limit, and those that do not say who they are, are closed at once; the others are served.
func TestConnectionsAreBounded(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for name, c := range map[string]struct {
		most, made int
		greets     bool
		limit      string
	}{
		"too many":                       {most: 5, made: 5, greets: true, limit: overLimit},
		"too many that say nothing":      {most: 10_000, made: 20, limit: overGreeting},
		"many that say who they are":     {most: 10_000, made: 30, greets: true},
		"as many as may be, and no more": {most: 6, made: 5, greets: true},
	} {
		t.Run(name, func(t *testing.T) {
			counted := newConnections(listener, c.most, slog.New(slog.DiscardHandler))
			counted.mostFrom = 20
			dial := func() net.Conn {
				conn, err := net.Dial("tcp", listener.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = conn.Close() })
				return conn
			}
			accept := func() net.Conn {
				conn, err := counted.Accept()
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = conn.Close() })
				if c.greets {
					conn.(access.Greeted).Greeted()
				}
				return conn
			}
			var last net.Conn
			for range c.made {
				dial()
				last = accept()
			}
			refused := dial()
			if c.limit == "" {
				accept()
				return
			}
			accepted := make(chan net.Conn, 1)
			go func() {
				conn, err := counted.Accept()
				if err == nil {
					accepted <- conn
				}
			}()
			if _, err := refused.Read(make([]byte, 1)); err == nil {
				t.Errorf("a connection over the limit is open: %v", err)
			}
			var sample dto.Metric
			if err := counted.refused.WithLabelValues(c.limit).Write(&sample); err != nil || sample.GetCounter().GetValue() != 1 {
				t.Errorf("counted %v, %v", sample.GetCounter(), err)
			}
			// One goes, and another one comes in.
			if err := last.Close(); err != nil {
				t.Fatal(err)
			}
			dial()
			conn := <-accepted
			_ = conn.Close()
			if got := counted.open.Load(); got != int64(c.made-1) {
				t.Errorf("%d connections are counted, want %d", got, c.made-1)
			}
		})
	}
}
