package subscribe_test

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/dataplane/enforce"
	"github.com/nameward/nameward/dataplane/enforce/enforcetest"
	"github.com/nameward/nameward/dataplane/subscribe"
)

const (
	storeID = "store-1"
	patient = 10 * time.Second // a test that waits longer has failed
)

// server is a policy server whose streams the test plays by hand.
type server struct {
	agentv1.UnimplementedSyncServiceServer
	healthv1.UnimplementedHealthServer
	address string
	streams chan *serverStream
	refuse  atomic.Bool // it is as good as not there
}

// serverStream is one stream, until the test ends it.
type serverStream struct {
	t *testing.T
	grpc.BidiStreamingServer[agentv1.SyncRequest, agentv1.SyncResponse]
	end      chan error
	requests chan *agentv1.SyncRequest
}

func startServer(t *testing.T) *server {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{address: listener.Addr().String(), streams: make(chan *serverStream)}
	g := grpc.NewServer()
	agentv1.RegisterSyncServiceServer(g, s)
	healthv1.RegisterHealthServer(g, s)
	done := make(chan error)
	go func() { done <- g.Serve(listener) }()
	t.Cleanup(func() {
		g.Stop()
		<-done
	})
	return s
}

func (s *server) Sync(stream grpc.BidiStreamingServer[agentv1.SyncRequest, agentv1.SyncResponse]) error {
	if s.refuse.Load() {
		return status.Error(codes.Unavailable, "away")
	}
	st := &serverStream{BidiStreamingServer: stream, end: make(chan error, 1), requests: make(chan *agentv1.SyncRequest, 100)}
	select {
	case s.streams <- st:
	case <-stream.Context().Done():
		return nil
	}
	go func() {
		defer close(st.requests)
		for {
			request, err := stream.Recv()
			if err != nil {
				return
			}
			st.requests <- request
		}
	}()
	select {
	case err := <-st.end:
		return err
	case <-stream.Context().Done():
		return nil
	}
}

func (s *server) Check(context.Context, *healthv1.HealthCheckRequest) (*healthv1.HealthCheckResponse, error) {
	if s.refuse.Load() {
		return nil, status.Error(codes.Unavailable, "away")
	}
	return &healthv1.HealthCheckResponse{Status: healthv1.HealthCheckResponse_SERVING}, nil
}

func (s *server) accept(t *testing.T) (*serverStream, *agentv1.Hello) {
	t.Helper()
	select {
	case st := <-s.streams:
		st.t = t
		hello := st.receive().GetHello()
		if hello == nil {
			t.Fatal("the first message is no hello")
		}
		return st, hello
	case <-time.After(patient):
		t.Fatal("no stream")
		return nil, nil
	}
}

func (st *serverStream) receive() *agentv1.SyncRequest {
	st.t.Helper()
	select {
	case request, ok := <-st.requests:
		if !ok {
			st.t.Fatal("the agent ended the stream")
		}
		return request
	case <-time.After(patient):
		st.t.Fatal("the agent says nothing")
		return nil
	}
}

func (st *serverStream) send(response *agentv1.SyncResponse) {
	st.t.Helper()
	if err := st.Send(response); err != nil {
		st.t.Fatal(err)
	}
}

func (st *serverStream) wantAck(revision uint64, rules *ruleset.RuleSet) {
	st.t.Helper()
	request := st.receive()
	ack, id := request.GetAck(), rules.ID()
	if ack.GetRevision() != revision || string(ack.GetRuleSetId()) != string(id[:]) {
		st.t.Fatalf("got %v, want an ack of revision %d, %s", request, revision, id)
	}
}

func (st *serverStream) wantNack(revision uint64, resync bool) {
	st.t.Helper()
	request := st.receive()
	nack := request.GetNack()
	if nack.GetRevision() != revision || nack.GetResync() != resync || nack.GetError() == "" {
		st.t.Fatalf("got %v, want a nack of revision %d with resync %v", request, revision, resync)
	}
}

// agent is a subscriber with a real reconciler on fakes of the kernel.
type agent struct {
	*subscribe.Subscriber
	maps       *enforcetest.Maps
	reconciler *enforce.Reconciler
	permitted  chan []netip.AddrPort
}

// reporter passes on what the server acknowledged.
type reporter struct{ acknowledged chan uint64 }

func (r reporter) Report(ctx context.Context, _ func(*agentv1.SyncRequest) error, acknowledged <-chan uint64) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case batch := <-acknowledged:
			r.acknowledged <- batch
		}
	}
}

func startAgent(t *testing.T, saved *enforce.Revision, r subscribe.Reporter, servers ...string) agent {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	a := agent{maps: enforcetest.NewMaps(10), permitted: make(chan []netip.AddrPort, 100)}
	a.reconciler = enforce.NewReconciler(a.maps, enforcetest.NewHooks(), enforcetest.NewConntrack(), &enforcetest.Saver{}, log)
	a.reconciler.Start(t.Context(), enforce.Saved{Revision: saved})
	a.Subscriber = subscribe.New(subscribe.Config{
		Servers: servers, ReturnAfter: 100 * time.Millisecond,
		Hello: &agentv1.Hello{Node: "lab", Labels: map[string]string{"role": "web"}, InstanceId: "1"},
		Permit: func(addresses []netip.AddrPort) error {
			a.permitted <- addresses
			return nil
		},
		DialOptions: []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())},
	}, a.reconciler, r, log)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- a.reconciler.Run(ctx) }()
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		}
	})
	return a
}

// rules returns a rule set of so many policies, each with one more pattern than the one before.
func rules(policies int) *ruleset.RuleSet {
	var list []ruleset.Policy
	for i := range policies {
		list = append(list, ruleset.Policy{
			Name: "policies/p" + string(rune('a'+i)), Workloads: []ruleset.Workload{{Host: true}},
			Rules: []ruleset.Rule{{Domains: enforcetest.Patterns(i + 1)}},
		})
	}
	return ruleset.New(list)
}

// update leads from one rule set to the next.
func update(from, to *ruleset.RuleSet, revision uint64) *agentv1.SyncResponse {
	id := to.ID()
	return &agentv1.SyncResponse{
		StoreId: storeID, Revision: revision, RuleSetId: id[:], Changes: from.Changes(to), Complete: true,
	}
}

func snapshot(to *ruleset.RuleSet, revision uint64) *agentv1.SyncResponse {
	response := update(&ruleset.RuleSet{}, to, revision)
	response.Reset_ = true
	return response
}
