package access_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/nameward/nameward/controlplane/access"
)

const syncMethod = "/nameward.agent.v1.SyncService/Sync"

// openSync opens a stream and waits until it is taken or refused.
func openSync(ctx context.Context, connection *grpc.ClientConn) (grpc.ClientStream, error) {
	stream, err := connection.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, syncMethod)
	if err != nil {
		return nil, err
	}
	if header, err := stream.Header(); err != nil || header == nil {
		if err == nil {
			err = stream.RecvMsg(&emptypb.Empty{})
		}
		return nil, err
	}
	return stream, nil
}

// A caller has so many calls of a kind running, others as many, and a place that is given up can be had again.
func TestRunningCallsAreBounded(t *testing.T) {
	s := serve(t, access.ByConvention(), true)
	connection, other := s.as(t, "spiffe://test/node/n"), s.as(t, "spiffe://test/node/m")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	running := 0
	var refused error
	for ; running < 100; running++ {
		if _, err := openSync(ctx, connection); err != nil {
			refused = err
			break
		}
	}
	if running != 4 || status.Code(refused) != codes.ResourceExhausted || infoOf(t, refused).GetReason() != "TOO_MANY_CALLS" {
		t.Fatalf("%d run, then %v", running, refused)
	}
	if _, err := openSync(ctx, other); err != nil {
		t.Errorf("another node: %v", err)
	}
	cancel()
	for deadline := time.Now().Add(30 * time.Second); ; {
		if _, err := openSync(t.Context(), connection); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("after the streams ended: %v", err)
		}
	}
	if got := sample(t, s.guard, "nameward_server_calls_limited_total", "sync"); got < 1 {
		t.Errorf("counted %v", got)
	}
}

// Who calls too often waits, and is refused nothing.
func TestCallsArePaced(t *testing.T) {
	s := serve(t, access.ByConvention(), true)
	connection := s.as(t, "spiffe://test/viewer/v")
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for range 40 {
				if err := call(t.Context(), connection, "/grpc.health.v1.Health/Check", false); err != nil {
					t.Errorf("got %v", err)
					return
				}
			}
		})
	}
	began := time.Now()
	callers.Wait()
	// 320 calls are 220 over what may come at once, and 20 a second of these are let through.
	if took := time.Since(began); took < 8*time.Second {
		t.Errorf("320 calls took %v", took)
	}
	if got := sample(t, s.guard, "nameward_server_calls_paced_total", "probe"); got < 100 {
		t.Errorf("counted %v", got)
	}
}

// A certificate has so many connections, those of a node fewer.
func TestConnectionsOfOneCallerAreBounded(t *testing.T) {
	s := serve(t, access.ByConvention(), true)
	for id, most := range map[string]int{"spiffe://test/node/n": 8, "spiffe://test/viewer/v": 256} {
		certificate := s.issue(t, id)
		for i := range most + 1 {
			err := call(t.Context(), s.dial(t, s.client(certificate)), "/grpc.health.v1.Health/Check", false)
			if (err == nil) != (i < most) {
				t.Errorf("%s, connection %d: %v", id, i+1, err)
			}
		}
	}
	if got := sample(t, s.guard, "nameward_server_caller_connections_refused_total", ""); got < 2 {
		t.Errorf("counted %v", got)
	}
	if err := call(t.Context(), s.as(t, "spiffe://test/node/other"), "/grpc.health.v1.Health/Check", false); err != nil {
		t.Errorf("another node: %v", err)
	}
}

// Each method is of a kind that has limits.
func TestEveryMethodHasALimit(t *testing.T) {
	for method, limit := range access.Limits() {
		if limit.Running < 1 || limit.PerSecond < 1 || limit.Burst < limit.PerSecond {
			t.Errorf("%s: %+v", method, limit)
		}
	}
	if got, want := len(access.Limits()), len(access.Methods()); got != want {
		t.Errorf("%d methods have limits, of %d", got, want)
	}
}
