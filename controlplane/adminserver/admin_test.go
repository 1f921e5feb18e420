package adminserver_test

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/controlplane/adminserver"
	"github.com/nameward/nameward/controlplane/storage/bolt"
	"github.com/nameward/nameward/controlplane/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server serves policies and domain sets on loopback, over a real storage.
type server struct {
	namewardv1.PolicyServiceClient
	sets  namewardv1.DomainSetServiceClient
	sync  agentv1.SyncServiceClient
	store *store.Store
	// stop ends the streams, as the program does before it leaves.
	stop func()
	// breakStorage makes every write fail.
	breakStorage func()
	logs         *lockedBuffer
}

type lockedBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func start(t testing.TB) *server {
	t.Helper()
	backend, err := bolt.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), backend)
	if err != nil {
		t.Fatal(err)
	}
	logs := &lockedBuffer{}
	log := slog.New(slog.NewTextHandler(logs, nil))
	validator, err := adminserver.NewValidator(log)
	if err != nil {
		t.Fatal(err)
	}
	stopping := make(chan struct{})
	grpcServer := grpc.NewServer(grpc.UnaryInterceptor(validator.Unary), grpc.StreamInterceptor(validator.Stream), grpc.MaxRecvMsgSize(16<<20))
	namewardv1.RegisterPolicyServiceServer(grpcServer, adminserver.NewPolicyService(s, log, stopping))
	namewardv1.RegisterDomainSetServiceServer(grpcServer, adminserver.NewDomainSetService(s, log))
	agentv1.RegisterSyncServiceServer(grpcServer, refusingSync{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := grpcServer.Serve(listener); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	connection, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	stop := sync.OnceFunc(func() { close(stopping) })
	t.Cleanup(func() {
		stop()
		if err := connection.Close(); err != nil {
			t.Errorf("close connection: %v", err)
		}
		grpcServer.GracefulStop()
		serving.Wait()
		if err := backend.Close(); err != nil {
			t.Errorf("close storage: %v", err)
		}
	})
	breakStorage := func() {
		if err := backend.Close(); err != nil {
			t.Errorf("close storage: %v", err)
		}
	}
	return &server{
		namewardv1.NewPolicyServiceClient(connection), namewardv1.NewDomainSetServiceClient(connection),
		agentv1.NewSyncServiceClient(connection), s, stop, breakStorage, logs,
	}
}

func (s *server) create(t testing.TB, id, description string) *namewardv1.Policy {
	t.Helper()
	p, err := s.CreatePolicy(t.Context(), &namewardv1.CreatePolicyRequest{PolicyId: id, Policy: &namewardv1.Policy{Description: description}})
	if err != nil {
		t.Fatalf("CreatePolicy(%s): %v", id, err)
	}
	return p
}

// violations returns the descriptions of a BadRequest by field, and fails the test if err is none.
func violations(t *testing.T, err error) map[string]string {
	t.Helper()
	wantCode(t, err, codes.InvalidArgument, "INVALID_FIELD")
	found := map[string]string{}
	for _, detail := range status.Convert(err).Details() {
		if request, ok := detail.(*errdetails.BadRequest); ok {
			for _, violation := range request.GetFieldViolations() {
				if _, twice := found[violation.GetField()]; twice {
					t.Errorf("field %s is named twice", violation.GetField())
				}
				found[violation.GetField()] = violation.GetDescription()
			}
		}
	}
	return found
}

// wantCode checks the code and the reason of the ErrorInfo, which every error has.
func wantCode(t *testing.T, err error, code codes.Code, reason string) {
	t.Helper()
	if got := status.Code(err); got != code {
		t.Fatalf("error = %v, want %v", err, code)
	}
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			if info.GetReason() != reason || info.GetDomain() != "nameward" {
				t.Errorf("ErrorInfo = %v, want reason %s of nameward", info, reason)
			}
			return
		}
	}
	t.Errorf("%v has no ErrorInfo", err)
}

func withCancel(t *testing.T) (context.Context, func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	return ctx, cancel
}
