package access_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
	"google.golang.org/protobuf/types/known/emptypb"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	peerv1 "github.com/nameward/nameward/api/nameward/peer/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/controlplane/access"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// records is an access.Auditor that keeps what it is told.
type records struct {
	mu   sync.Mutex
	told []string
}

func (r *records) Denied(caller access.Caller, method, _ string, count int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told = append(r.told, fmt.Sprintf("%s %s %d", caller, method, count))
}

func (r *records) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.told...)
}

// server serves every service of the API, none of which does anything, behind a guard.
type server struct {
	*authority
	guard   *access.Guard
	address string
	denied  *records
	info    map[string]grpc.ServiceInfo
	// received counts the requests that came past the guard.
	received sync.Map
}

func serve(t *testing.T, roles *access.Roles, secure bool, more ...grpc.ServerOption) *server {
	t.Helper()
	s := &server{authority: newAuthority(t), denied: &records{}}
	s.guard = access.NewGuard(roles, !secure, s.denied, slog.New(slog.DiscardHandler))
	inner := insecure.NewCredentials()
	if secure {
		inner = s.server(t)
	}
	count := func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		s.received.Store(info.FullMethod, true)
		return handler(ctx, request)
	}
	g := grpc.NewServer(append([]grpc.ServerOption{
		grpc.Creds(s.guard.Credentials(inner)), grpc.InTapHandle(s.guard.Tap),
		grpc.ChainUnaryInterceptor(count, s.guard.Unary), grpc.ChainStreamInterceptor(s.guard.Stream), grpc.MaxRecvMsgSize(64 << 20),
	}, more...)...)
	namewardv1.RegisterPolicyServiceServer(g, namewardv1.UnimplementedPolicyServiceServer{})
	namewardv1.RegisterDomainSetServiceServer(g, namewardv1.UnimplementedDomainSetServiceServer{})
	namewardv1.RegisterNodeServiceServer(g, namewardv1.UnimplementedNodeServiceServer{})
	namewardv1.RegisterObservationServiceServer(g, namewardv1.UnimplementedObservationServiceServer{})
	namewardv1.RegisterAuditServiceServer(g, namewardv1.UnimplementedAuditServiceServer{})
	agentv1.RegisterSyncServiceServer(g, holdingSync{})
	peerv1.RegisterRelayServiceServer(g, peerv1.UnimplementedRelayServiceServer{})
	healthv1.RegisterHealthServer(g, health.NewServer())
	reflection.Register(g)
	s.info = g.GetServiceInfo()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.address = listener.Addr().String()
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := g.Serve(listener); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(func() { g.Stop(); serving.Wait() })
	return s
}

// holdingSync holds each stream until its client goes.
type holdingSync struct {
	agentv1.UnimplementedSyncServiceServer
}

func (holdingSync) Sync(stream agentv1.SyncService_SyncServer) error {
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	<-stream.Context().Done()
	return context.Cause(stream.Context())
}

func (s *server) dial(t *testing.T, with credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	connection, err := grpc.NewClient(s.address, grpc.WithTransportCredentials(with))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	return connection
}

func (s *server) as(t *testing.T, id string) *grpc.ClientConn {
	t.Helper()
	return s.dial(t, s.client(s.issue(t, id)))
}

// call calls a method with an empty request. What serves it either does not know it (it is past the guard) or holds it.
func call(ctx context.Context, connection *grpc.ClientConn, method string, streams bool) error {
	if !streams {
		return connection.Invoke(ctx, method, &emptypb.Empty{}, &emptypb.Empty{})
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := connection.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return err
	}
	if method == syncMethod {
		// It is held: headers say that it is past the guard.
		if header, err := stream.Header(); err != nil || header != nil {
			return err
		}
		return stream.RecvMsg(&emptypb.Empty{})
	}
	if err := stream.SendMsg(&emptypb.Empty{}); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	return stream.RecvMsg(&emptypb.Empty{})
}

// streamEnd returns the status of a stream that has ended, nil of one that lives.
func streamEnd(stream grpc.ClientStream) error {
	got := make(chan error, 1)
	go func() { got <- stream.RecvMsg(&emptypb.Empty{}) }()
	select {
	case err := <-got:
		return err
	case <-time.After(50 * time.Millisecond): // it only bounds how long a stream that lives is looked at
		return nil
	}
}
