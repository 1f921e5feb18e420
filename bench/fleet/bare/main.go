// Bare is the least that a gRPC server can do where a policy server tells a fleet of policies: it holds no policies,
// compiles nothing and remembers nothing of nodes. Each written policy goes to every stream in bytes that are ready,
// and what agents say is read as bytes and dropped. What a policy server costs beside it is the policy server's; what
// it costs itself is gRPC's, and the kernel's.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	protobuf "google.golang.org/protobuf/proto"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/ruleset"
)

func main() {
	address := flag.String("listen", "127.0.0.1:0", "where to listen")
	for _, name := range []string{"data-dir", "metrics-listen", "log-format"} {
		flag.String(name, "", "as the policy server has, and of no meaning")
	}
	flag.Bool("insecure", true, "the same")
	flag.Parse()
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	if err := run(*address, log); err != nil {
		log.Error("not served", "err", err)
		os.Exit(1)
	}
}

func run(address string, log *slog.Logger) error {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", address)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	s := &server{streams: map[grpc.ServerStream]struct{}{}}
	s.revision.Store(1)
	// As in controlplane/run.go.
	g := grpc.NewServer(
		grpc.ForceServerCodecV2(codec{encoding.GetCodecV2(proto.Name)}), grpc.ReadBufferSize(4<<10),
		grpc.WriteBufferSize(8<<10),
		grpc.StaticStreamWindowSize(1<<20), grpc.StaticConnWindowSize(2<<20),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 10 * time.Second}),
	)
	namewardv1.RegisterPolicyServiceServer(g, s)
	g.RegisterService(&grpc.ServiceDesc{
		ServiceName: agentv1.SyncService_ServiceDesc.ServiceName, HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{StreamName: "Sync", ServerStreams: true, ClientStreams: true, Handler: s.sync}},
	}, s)
	log.Info("listening", "address", listener.Addr().String())
	return g.Serve(listener) //nolint:wrapcheck // says what it did
}

// ready is an encoded message, both ways.
type ready []byte

// codec passes ready messages through.
type codec struct{ encoding.CodecV2 }

// Marshal returns the bytes of a ready message.
func (c codec) Marshal(message any) (mem.BufferSlice, error) {
	if encoded, ok := message.(ready); ok {
		return mem.BufferSlice{mem.SliceBuffer(encoded)}, nil
	}
	return c.CodecV2.Marshal(message) //nolint:wrapcheck // gRPC's own
}

// Unmarshal drops what is not asked for decoded.
func (c codec) Unmarshal(data mem.BufferSlice, message any) error {
	if _, ok := message.(*ready); ok {
		return nil
	}
	return c.CodecV2.Unmarshal(data, message) //nolint:wrapcheck // gRPC's own
}

type server struct {
	namewardv1.UnimplementedPolicyServiceServer

	revision atomic.Uint64
	mu       sync.Mutex // guards streams, and keeps what is sent in order
	streams  map[grpc.ServerStream]struct{}
}

// UpdatePolicy sends the policy to all streams.
func (s *server) UpdatePolicy(_ context.Context, request *namewardv1.UpdatePolicyRequest) (*namewardv1.Policy, error) {
	policy, err := ruleset.ParsePolicy(request.GetPolicy())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	message, err := s.response(&agentv1.SyncResponse{Changes: []*agentv1.RuleSetChange{
		{Change: &agentv1.RuleSetChange_PutPolicy{PutPolicy: policy.ToProto()}},
	}}, s.revision.Add(1))
	if err != nil {
		return nil, err
	}
	// As there, a write is answered before all have heard of it.
	go s.send(message)
	return request.GetPolicy(), nil
}

func (s *server) send(message ready) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for stream := range s.streams {
		if err := stream.SendMsg(message); err != nil {
			delete(s.streams, stream)
		}
	}
}

func (s *server) response(response *agentv1.SyncResponse, revision uint64) (ready, error) {
	response.StoreId, response.Revision, response.RuleSetId, response.Complete = "bare", revision, make([]byte, 32), true
	encoded, err := protobuf.Marshal(response)
	if err != nil {
		return nil, fmt.Errorf("encode response: %w", err)
	}
	return encoded, nil
}

// sync is the stream of an agent.
func (s *server) sync(_ any, stream grpc.ServerStream) error {
	var hello ready
	if err := stream.RecvMsg(&hello); err != nil {
		return err //nolint:wrapcheck // gRPC's own
	}
	if err := s.begin(stream); err != nil {
		return err
	}
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.streams, stream)
	}()
	for {
		var message ready
		if err := stream.RecvMsg(&message); err != nil {
			return err //nolint:wrapcheck // gRPC's own
		}
	}
}

func (s *server) begin(stream grpc.ServerStream) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	message, err := s.response(&agentv1.SyncResponse{Reset_: true}, s.revision.Load())
	if err != nil {
		return err
	}
	s.streams[stream] = struct{}{}
	return stream.SendMsg(message) //nolint:wrapcheck // gRPC's own
}
