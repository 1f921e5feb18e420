package controlplane_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

// lookAfter is when a condition is judged anew without news: that another server is no longer missed is told by nothing.
const lookAfter = time.Second

// eventually waits until a condition holds of what a server knows of the fleet. It is judged anew when the server tells
// of a mapping, a flow event, a node, or that another server is missed.
func eventually(t testing.TB, connection *grpc.ClientConn, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	var following sync.WaitGroup
	defer following.Wait()
	defer cancel()
	news := make(chan struct{}, 1)
	observations := namewardv1.NewObservationServiceClient(connection)
	patient := grpc.WaitForReady(true)
	for _, open := range []func() (grpc.ClientStream, error){
		func() (grpc.ClientStream, error) {
			return observations.WatchMappings(ctx, &namewardv1.WatchMappingsRequest{}, patient)
		},
		func() (grpc.ClientStream, error) {
			return observations.WatchFlowEvents(ctx, &namewardv1.WatchFlowEventsRequest{}, patient)
		},
		func() (grpc.ClientStream, error) {
			return namewardv1.NewNodeServiceClient(connection).WatchNodes(ctx, &namewardv1.WatchNodesRequest{}, patient)
		},
	} {
		following.Go(func() { follow(ctx, open, news) })
	}
	ticker := time.NewTicker(lookAfter)
	defer ticker.Stop()
	for !holds() {
		select {
		case <-ctx.Done():
			t.Fatal(what)
		case <-news:
		case <-ticker.C:
		}
	}
}

// follow says that there is news with each message of a stream, and each time that it ends, until ctx does.
func follow(ctx context.Context, open func() (grpc.ClientStream, error), news chan<- struct{}) {
	for ctx.Err() == nil {
		stream, err := open()
		for err == nil {
			// Which of the three is of no interest: an unknown message keeps its fields as they came.
			err = stream.RecvMsg(&namewardv1.WatchMappingsResponse{})
			select {
			case news <- struct{}{}:
			default:
			}
		}
	}
}

// awaitStream receives until a message is as asked, and returns it.
func awaitStream[R any](t testing.TB, stream grpc.ServerStreamingClient[R], what string, is func(*R) bool) *R {
	t.Helper()
	for {
		message, err := stream.Recv()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if is(message) {
			return message
		}
	}
}
