package controlplane_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/controlplane"
)

// server is a whole policy server on loopback.
type server struct {
	t          testing.TB
	connection *grpc.ClientConn
	policies   namewardv1.PolicyServiceClient
	sets       namewardv1.DomainSetServiceClient
	nodes      namewardv1.NodeServiceClient
	mappings   namewardv1.ObservationServiceClient
	metrics    string
	stop       func()
}

// start runs a server on the data directory until the test ends or stop is called.
func start(t testing.TB, dataDir string) *server {
	t.Helper()
	return startWith(t, dataDir, func(*controlplane.Config) {})
}

func startWith(t testing.TB, dataDir string, configure func(*controlplane.Config)) *server {
	t.Helper()
	cfg := controlplane.DefaultConfig()
	cfg.Listen, cfg.MetricsListen, cfg.DataDir, cfg.Insecure = "127.0.0.1:0", "127.0.0.1:0", dataDir, true
	configure(&cfg)
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	addresses := &addresses{of: map[string]chan string{"listening": make(chan string, 1), "serving metrics": make(chan string, 1)}}
	done := make(chan error, 1)
	go func() { done <- controlplane.Run(ctx, cfg, slog.New(addresses)) }()
	s := &server{t: t, metrics: addresses.wait(t, "serving metrics", done)}
	connection, err := grpc.NewClient(addresses.wait(t, "listening", done),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		t.Fatal(err)
	}
	s.connection = connection
	s.policies = namewardv1.NewPolicyServiceClient(connection)
	s.sets = namewardv1.NewDomainSetServiceClient(connection)
	s.nodes = namewardv1.NewNodeServiceClient(connection)
	s.mappings = namewardv1.NewObservationServiceClient(connection)
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if err := connection.Close(); err != nil {
			t.Errorf("close connection: %v", err)
		}
	})
	t.Cleanup(s.stop)
	return s
}

// put makes or replaces a policy that allows one name on the nodes of a role.
func (s *server) put(id, role, domain string) *namewardv1.Policy {
	s.t.Helper()
	p := &namewardv1.Policy{
		Name:  "policies/" + id,
		Rules: []*namewardv1.Rule{{Action: namewardv1.Rule_ALLOW, Domains: []string{domain}}},
	}
	if role != "" {
		p.NodeSelector = &namewardv1.NodeSelector{MatchLabels: map[string]string{"role": role}}
	}
	stored, err := s.policies.UpdatePolicy(s.t.Context(), &namewardv1.UpdatePolicyRequest{Policy: p, AllowMissing: true})
	if err != nil {
		s.t.Fatal(err)
	}
	return stored
}

// status waits until the status of a node is as it should be, and returns it.
func (s *server) status(node string, accept func(*namewardv1.NodeStatus) bool) *namewardv1.NodeStatus {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	var last *namewardv1.Node
	var stream grpc.ServerStreamingClient[namewardv1.WatchNodesResponse]
	for {
		if stream == nil {
			opened, err := s.nodes.WatchNodes(ctx, &namewardv1.WatchNodesRequest{})
			if err != nil {
				s.t.Fatal(err)
			}
			stream = opened
		}
		told, err := stream.Recv()
		switch {
		case status.Code(err) == codes.Unavailable:
			stream = nil // another server came or went: from the beginning
			continue
		case err != nil:
			s.t.Fatalf("status of %s: %v, %v", node, last, err)
		case told.GetNode().GetName() != "nodes/"+node:
			continue
		}
		last = told.GetNode()
		if told.GetChange() == namewardv1.WatchNodesResponse_PUT && accept(last.GetStatus()) {
			return last.GetStatus()
		}
	}
}

// addresses is a log handler that catches the addresses that are listened on.
type addresses struct{ of map[string]chan string }

func (a *addresses) wait(t testing.TB, message string, done <-chan error) string {
	t.Helper()
	select {
	case address := <-a.of[message]:
		return address
	case err := <-done:
		t.Fatalf("Run: %v", err)
	case <-time.After(patience):
		t.Fatalf("no record %q", message)
	}
	return ""
}

func (a *addresses) Enabled(context.Context, slog.Level) bool { return true }

func (a *addresses) Handle(_ context.Context, record slog.Record) error {
	record.Attrs(func(attr slog.Attr) bool {
		if c, ok := a.of[record.Message]; ok && attr.Key == "address" {
			c <- attr.Value.String()
		}
		return true
	})
	return nil
}

func (a *addresses) WithAttrs([]slog.Attr) slog.Handler { return a }
func (a *addresses) WithGroup(string) slog.Handler      { return a }
