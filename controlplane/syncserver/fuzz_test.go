package syncserver_test

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/controlplane/ingest"
	"github.com/nameward/nameward/controlplane/publish"
	"github.com/nameward/nameward/controlplane/store"
	"github.com/nameward/nameward/controlplane/syncserver"
)

// stream is what a node says, and the end of it.
type stream struct {
	ctx   context.Context
	codec encoding.CodecV2
	says  []*agentv1.SyncRequest
}

func (s *stream) Recv() (*agentv1.SyncRequest, error) {
	if len(s.says) == 0 {
		return nil, io.EOF
	}
	next := s.says[0]
	s.says = s.says[1:]
	return next, nil
}

// RecvMsg is what the server reads behind the hello with.
func (s *stream) RecvMsg(message any) error {
	next, err := s.Recv()
	if err != nil {
		return err
	}
	wire, err := proto.Marshal(next)
	if err != nil {
		return err
	}
	return s.codec.Unmarshal(mem.BufferSlice{mem.SliceBuffer(wire)}, message)
}

func (s *stream) Context() context.Context         { return s.ctx }
func (s *stream) Send(*agentv1.SyncResponse) error { return nil }
func (s *stream) SendMsg(any) error                { return nil }
func (s *stream) SetHeader(metadata.MD) error      { return nil }
func (s *stream) SendHeader(metadata.MD) error     { return nil }
func (s *stream) SetTrailer(metadata.MD)           {}

type fixture struct {
	*syncserver.Server
	store    *store.Store
	mappings *ingest.Table
	flows    *ingest.Flows
}

// newServer returns a server whose loops do not run: what it holds is what streams made it hold.
func newServer(t testing.TB) fixture {
	t.Helper()
	s := syncserver.OpenStore(t)
	f := fixture{store: s, mappings: ingest.New(10_000), flows: ingest.NewFlows(10_000)}
	f.Server = syncserver.New(s, publish.New(s), f.mappings, f.flows, time.Second, slog.New(slog.DiscardHandler))
	return f
}

// say plays a stream, without TLS, to its end.
func (f fixture) say(t testing.TB, says ...*agentv1.SyncRequest) error {
	t.Helper()
	_, plain, err := insecure.NewCredentials().ServerHandshake(nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(peer.NewContext(context.Background(), &peer.Peer{Addr: &net.TCPAddr{}, AuthInfo: plain}))
	defer cancel()
	tapped := f.Tap(func(ctx context.Context, _ *tap.Info) (context.Context, error) { return ctx, nil })
	if ctx, err = tapped(ctx, &tap.Info{FullMethodName: agentv1.SyncService_Sync_FullMethodName}); err != nil {
		t.Fatal(err)
	}
	return f.Sync(&stream{ctx, f.Codec(), says})
}

func hello(change func(*agentv1.Hello)) *agentv1.SyncRequest {
	h := &agentv1.Hello{Node: "n", InstanceId: "i", Labels: map[string]string{"role": "web"}, AgentVersion: "1", Kernel: "6.18", IptablesBackend: "nft"}
	change(h)
	return &agentv1.SyncRequest{Message: &agentv1.SyncRequest_Hello{Hello: h}}
}

// FuzzSync plays messages of a node, the first of which is a hello: the server must not panic, and holds no more of it
// than is bounded.
func FuzzSync(f *testing.F) {
	add := func(requests ...*agentv1.SyncRequest) {
		var text []byte
		for _, request := range requests {
			wire, err := proto.Marshal(request)
			if err != nil {
				f.Fatal(err)
			}
			text = append(binary.AppendUvarint(text, uint64(len(wire))), wire...)
		}
		f.Add(text)
	}
	same := func(*agentv1.Hello) {}
	at := timestamppb.New(time.Now())
	add(hello(same))
	add(hello(same), &agentv1.SyncRequest{Message: &agentv1.SyncRequest_Ack{Ack: &agentv1.Ack{Revision: 1, RuleSetId: make([]byte, 32)}}})
	add(hello(same), &agentv1.SyncRequest{Message: &agentv1.SyncRequest_Nack{Nack: &agentv1.Nack{Revision: 1, Error: "full", Resync: true}}})
	add(hello(same), &agentv1.SyncRequest{Message: &agentv1.SyncRequest_Status{Status: &agentv1.StatusReport{
		Counters: map[string]uint64{"a": 1}, Degraded: []string{"b"}, PolicyServers: []string{"192.0.2.1:1"}, Addresses: []string{"192.0.2.0/24", "::1"},
	}}})
	add(hello(same), &agentv1.SyncRequest{Message: &agentv1.SyncRequest_Observations{Observations: &agentv1.Observations{
		Batch: 1, SnapshotBegin: true, SnapshotEnd: true, SentTime: at,
		Mappings: []*namewardv1.Mapping{{Domain: "a.example", Address: "192.0.2.1", Client: "10.0.0.1", Chain: []string{"b.example"}, ExpireTime: at, FirstSeenTime: at, FormerAliases: []*namewardv1.Mapping_FormerAlias{{Domain: "c.example", ExpireTime: at}}}},
		FlowEvents: []*namewardv1.FlowEvent{{
			Mode: namewardv1.Policy_ENFORCE, Reason: namewardv1.FlowEvent_NO_RULE, Count: 1, FirstTime: at, LastTime: at, Domains: []string{"a.example"},
			Workload:    &namewardv1.FlowEvent_Workload{Address: "10.1.0.7"},
			Destination: &namewardv1.FlowEvent_Destination{Address: "192.0.2.1", Port: 443, Protocol: namewardv1.Protocol_TCP},
		}},
	}}}, hello(same))
	server := newServer(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		var says []*agentv1.SyncRequest
		for len(text) > 0 && len(says) < 64 {
			size, n := binary.Uvarint(text)
			if n <= 0 || size > uint64(len(text)-n) {
				break
			}
			request := &agentv1.SyncRequest{}
			if proto.Unmarshal(text[n:n+int(size)], request) == nil { //nolint:gosec // at most len(text)
				says = append(says, request)
			}
			text = text[n+int(size):] //nolint:gosec // at most len(text)
		}
		// Whatever it was, its end has a code that an agent can go by.
		if code := status.Code(server.say(t, says...)); code == codes.Internal || code == codes.Unknown {
			t.Errorf("ended with %v: %v", code, says)
		}
		for _, n := range mustNodes(server.store) {
			if size := proto.Size(n.Message()); size > 1<<20 {
				t.Errorf("of a node %d bytes are held", size)
			}
			if err := server.store.DeleteNode(context.Background(), n.ID, func() { server.mappings.Forget(n.ID); server.flows.Forget(n.ID) }); err != nil {
				t.Error(err)
			}
		}
	})
}

func mustNodes(s *store.Store) []*store.Node {
	nodes, _ := s.Nodes()
	return nodes
}

// What is too much in a hello is refused by name, and nothing of it is kept.
func TestHelloIsBounded(t *testing.T) {
	server := newServer(t)
	many := map[string]string{}
	for i := range 129 {
		many[strings.Repeat("x", i+1)] = "y"
	}
	for field, change := range map[string]func(*agentv1.Hello){
		"hello.labels":            func(h *agentv1.Hello) { h.Labels = many },
		"hello.labels[role]":      func(h *agentv1.Hello) { h.Labels["role"] = strings.Repeat("x", 1025) },
		"hello.kernel":            func(h *agentv1.Hello) { h.Kernel = strings.Repeat("x", 1<<20) },
		"hello.agent_version":     func(h *agentv1.Hello) { h.AgentVersion = strings.Repeat("x", 257) },
		"hello.instance_id":       func(h *agentv1.Hello) { h.InstanceId = strings.Repeat("x", 257) },
		"hello.rule_set_id":       func(h *agentv1.Hello) { h.RuleSetId = make([]byte, 1000) },
		"hello.trusted_resolvers": func(h *agentv1.Hello) { h.TrustedResolvers = make([]string, 1000) },
	} {
		err := server.say(t, hello(change))
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), field+" has ") {
			t.Errorf("%s: %v", field, err)
		}
	}
	if nodes := mustNodes(server.store); len(nodes) != 0 {
		t.Errorf("%d nodes were registered", len(nodes))
	}
}

// Of a status that is too large the server keeps what an agent could have said.
func TestStatusIsBounded(t *testing.T) {
	server := newServer(t)
	report := &agentv1.StatusReport{Counters: map[string]uint64{strings.Repeat("long", 100): 1}, Degraded: []string{strings.Repeat("x", 1<<20)}}
	for i := range 10_000 {
		report.Counters[string(rune('a'+i%26))+strings.Repeat("x", i%200)+string(rune('a'+i/26%26))] = 1
		report.Degraded = append(report.Degraded, "fault")
		report.Addresses = append(report.Addresses, "192.0.2.1")
		report.PolicyServers = append(report.PolicyServers, "192.0.2.1:7443")
	}
	err := server.say(t, hello(func(*agentv1.Hello) {}), &agentv1.SyncRequest{Message: &agentv1.SyncRequest_Status{Status: report}},
		&agentv1.SyncRequest{Message: &agentv1.SyncRequest_Nack{Nack: &agentv1.Nack{Error: strings.Repeat("x", 1<<20)}}})
	if err != nil {
		t.Fatal(err)
	}
	server.AwaitWanted(canceled())
	id, err := node.ParseID("n")
	if err != nil {
		t.Fatal(err)
	}
	n, err := server.store.Node(id)
	if err != nil {
		t.Fatal(err)
	}
	if got := n.Status; len(got.Counters) > 512 || len(got.Degraded) != 64 || len(got.Addresses) != 256 || !got.MoreAddresses || len(got.PolicyServers) != 256 {
		t.Errorf("%d counters, %d faults, %d addresses, more %v, %d servers", len(got.Counters), len(got.Degraded), len(got.Addresses), got.MoreAddresses, len(got.PolicyServers))
	}
	if size := proto.Size(n.Message()); size > 256<<10 {
		t.Errorf("of the node %d bytes are held", size)
	}
}

// canceled does not wait for what nobody computes here.
func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// What is larger than any message of an agent is not decoded.
func TestLargeMessagesAreNotDecoded(t *testing.T) {
	codec := newServer(t).Codec()
	request := &agentv1.SyncRequest{Message: &agentv1.SyncRequest_Observations{Observations: &agentv1.Observations{}}}
	o := request.GetObservations()
	for range 1 << 20 {
		o.Mappings = append(o.Mappings, &namewardv1.Mapping{Domain: "a.example"})
	}
	wire, err := proto.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	request, o = nil, nil
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err = codec.Unmarshal(mem.BufferSlice{mem.SliceBuffer(wire)}, &agentv1.SyncRequest{})
	runtime.ReadMemStats(&after)
	if err == nil || !strings.Contains(err.Error(), "message has ") {
		t.Errorf("got %v", err)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
		t.Errorf("it took %d bytes", took)
	}
	// What operators send may be larger.
	large := &namewardv1.CreatePolicyRequest{PolicyId: strings.Repeat("x", 16<<20)}
	if wire, err = proto.Marshal(large); err != nil {
		t.Fatal(err)
	}
	if err := codec.Unmarshal(mem.BufferSlice{mem.SliceBuffer(wire)}, &namewardv1.CreatePolicyRequest{}); err != nil {
		t.Error(err)
	}
}
