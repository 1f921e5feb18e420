package fleet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
)

// As agents do: see dataplane/subscribe.
const (
	ackInterval    = 100 * time.Millisecond
	statusInterval = 10 * time.Second
	backoffFirst   = 100 * time.Millisecond
	backoffLast    = 10 * time.Second
	windowSize     = 1 << 20
	// Thousands of connections are in one process: what they read and write lies in small buffers.
	bufferSize = 4 << 10
	maxMessage = 64 << 20
)

var (
	errDrained      = errors.New("the server asked to leave")
	errDisconnected = errors.New("the connection was broken")
	errProtocol     = errors.New("the server breaks the protocol")
)

// Agent is one node's.
type Agent struct {
	fleet    *Fleet
	node     int
	name     string
	instance string
	keep     bool

	sending sync.Mutex // a stream takes one message at a time
	// reporting is held from the choice of a batch until it is sent, so that the server takes in what the agent says of
	// one mapping in the order in which it was. It is taken before mu.
	reporting sync.Mutex

	mu     sync.Mutex // guards all below
	state  State
	tries  int // since a server answered
	store  string
	held   held
	stream grpc.ClientStream
	leave  context.CancelCauseFunc
	// acked is when the agent acknowledged last, due says that a timer will.
	ackedAt time.Time
	due     bool
	batch   uint64
	// live are the mappings that the agent remembers, in the order in which it saw them; nil where it remembers none.
	live *remembered
}

func newAgent(f *Fleet, node int) *Agent {
	a := &Agent{fleet: f, node: node, name: "node-" + strconv.Itoa(node), instance: strconv.FormatUint(rand.Uint64(), 36)}
	if f.cfg.Name != nil {
		a.name = f.cfg.Name(node)
	}
	a.state.Node = node
	a.keep = f.cfg.Keep != nil && f.cfg.Keep(node)
	if f.cfg.Remember != nil && f.cfg.Remember(node) {
		a.live = &remembered{}
	}
	return a
}

// State returns how the agent is.
func (a *Agent) State() State {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.state
}

// run stays connected until ctx ends.
func (a *Agent) run(ctx context.Context) error {
	servers := a.fleet.cfg.Servers
	if len(servers) == 0 {
		servers = []string{a.fleet.cfg.Server}
	}
	connections := make([]*grpc.ClientConn, len(servers))
	for i, server := range servers {
		var err error
		if connections[i], err = a.connection(server); err != nil {
			return fmt.Errorf("%s: %w", a.name, err)
		}
		defer connections[i].Close() //nolint:errcheck // the agent ends
	}
	next := move{at: a.node % len(servers)}
	for failures := 0; ctx.Err() == nil; failures++ {
		began := time.Now()
		err := a.talk(ctx, servers[next.at], connections[next.at])
		if ctx.Err() != nil {
			return nil
		}
		lasted := time.Since(began)
		next = a.after(next, servers, lasted, err)
		a.ended(err, next)
		if errors.Is(err, errDrained) || lasted >= a.fleet.cfg.BackoffLast {
			failures = 0
		}
		if next.atOnce {
			connections[next.at].ResetConnectBackoff()
			continue
		}
		bound := a.fleet.cfg.BackoffLast
		if failures < 10 {
			bound = min(backoffFirst<<failures, bound)
		}
		pause(ctx, rand.N(bound))
		// What gRPC remembers of failures would add its own waiting to that of the agent, which dials anew.
		connections[next.at].ResetConnectBackoff()
	}
	return nil
}

func (a *Agent) connection(server string) (*grpc.ClientConn, error) {
	options := append([]grpc.DialOption{
		grpc.WithInitialWindowSize(windowSize), grpc.WithInitialConnWindowSize(windowSize),
		grpc.WithReadBufferSize(bufferSize), grpc.WithWriteBufferSize(bufferSize),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.ForceCodecV2(newCodec())),
		grpc.WithNoProxy(), grpc.WithTransportCredentials(a.fleet.cfg.Credentials(a.node)),
	}, a.fleet.cfg.DialOptions...)
	connection, err := grpc.NewClient("passthrough:///"+server, options...)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	return connection, nil
}

// talk runs one stream until it ends.
func (a *Agent) talk(ctx context.Context, server string, connection *grpc.ClientConn) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stream, err := connection.NewStream(ctx, &agentv1.SyncService_ServiceDesc.Streams[0], agentv1.SyncService_Sync_FullMethodName)
	if err != nil {
		return fmt.Errorf("open stream: %w", err)
	}
	if err := a.send(stream, &agentv1.SyncRequest{Message: &agentv1.SyncRequest_Hello{Hello: a.hello(stream, cancel)}}); err != nil {
		return err
	}
	for first := true; ; first = false {
		if a.fleet.cfg.Slow != nil {
			pause(ctx, a.fleet.cfg.Slow(a.node))
		}
		r := response{keep: a.keep}
		if err := stream.RecvMsg(&r); err != nil {
			return cause(ctx, fmt.Errorf("receive: %w", err))
		}
		if first {
			if err := a.begin(ctx, stream, server, &r); err != nil {
				return err
			}
			a.tellStatus(ctx, stream, rand.N(a.fleet.cfg.StatusInterval))
		}
		if err := a.take(&r); err != nil {
			return err
		}
	}
}

// hello makes a stream the agent's.
func (a *Agent) hello(stream grpc.ClientStream, leave context.CancelCauseFunc) *agentv1.Hello {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stream, a.leave, a.batch, a.ackedAt, a.due = stream, leave, 0, time.Time{}, false
	a.state.Acked, a.state.Batch = 0, 0
	a.tries++
	hello := &agentv1.Hello{
		Node: a.name, InstanceId: a.instance, AgentVersion: "fleet", Kernel: "none", IptablesBackend: "nft",
		StoreId: a.store, Revision: a.state.Revision, RuleSetId: []byte(a.state.RuleSetID),
	}
	if a.fleet.cfg.Plain == nil || !a.fleet.cfg.Plain(a.node) {
		hello.Capabilities = []agentv1.Hello_Capability{agentv1.Hello_PACKED_CHANGES}
	}
	if a.fleet.cfg.Labels != nil {
		hello.Labels = a.fleet.cfg.Labels(a.node)
	}
	return hello
}

// begin takes the answer to hello.
func (a *Agent) begin(ctx context.Context, stream grpc.ClientStream, server string, r *response) error {
	// Nothing is reported before the snapshot has begun.
	if err := a.tellSnapshot(ctx, stream); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.state.Streams++
	a.state.Connected = true
	a.state.Server, a.state.Tries, a.tries = server, a.tries, 0
	switch {
	case r.reset:
		a.state.Reset++
	case r.resumed:
		a.state.Resumed++
	default:
		a.state.Faults++
		return fmt.Errorf("%w: its first response says neither resumed nor reset", errProtocol)
	}
	a.fleet.move()
	return nil
}

// take takes a response in, and answers it.
func (a *Agent) take(r *response) error {
	now := time.Now()
	a.mu.Lock()
	a.state.Messages++
	a.state.Bytes += r.size
	if r.storeID != "" {
		a.store = r.storeID
	}
	a.state.Batch = max(a.state.Batch, r.batch)
	stream, leave := a.stream, a.leave
	if a.keep {
		a.held.add(r)
	}
	if r.complete {
		a.complete(r)
	}
	revision := a.state.Revision
	a.mu.Unlock()
	if r.drain > 0 {
		asked := &drained{r.drainServers}
		time.AfterFunc(rand.N(r.drain), func() { leave(asked) })
	}
	defer a.fleet.move()
	if !r.complete {
		return nil
	}
	if a.fleet.cfg.Arrived != nil {
		a.fleet.cfg.Arrived(Arrival{a.node, revision, now})
	}
	return a.answer(stream, revision)
}

// complete is called under mu.
func (a *Agent) complete(r *response) {
	if r.revision == 0 || r.id == "" {
		a.state.Faults++
	}
	a.state.Revision, a.state.RuleSetID = r.revision, r.id
}

// answer refuses a revision at once, or acknowledges it when it is time to.
func (a *Agent) answer(stream grpc.ClientStream, revision uint64) error {
	if a.fleet.cfg.Refuse != nil {
		if err := a.fleet.cfg.Refuse(a.node, revision); err != nil {
			return a.send(stream, &agentv1.SyncRequest{Message: &agentv1.SyncRequest_Nack{Nack: &agentv1.Nack{
				Revision: revision, Error: err.Error(),
			}}})
		}
	}
	a.mu.Lock()
	wait := time.Until(a.ackedAt.Add(ackInterval))
	if a.due || wait > 0 {
		if !a.due {
			a.due = true
			time.AfterFunc(wait, func() { _ = a.ack(stream) }) // what broke the stream is told by its reader
		}
		a.mu.Unlock()
		return nil
	}
	a.mu.Unlock()
	return a.ack(stream)
}

func (a *Agent) ack(stream grpc.ClientStream) error {
	a.mu.Lock()
	if a.stream != stream {
		a.mu.Unlock()
		return nil
	}
	a.due = false
	a.ackedAt, a.state.Acked = time.Now(), a.state.Revision
	ack := &agentv1.Ack{Revision: a.state.Revision, RuleSetId: []byte(a.state.RuleSetID)}
	a.mu.Unlock()
	a.fleet.move()
	return a.send(stream, &agentv1.SyncRequest{Message: &agentv1.SyncRequest_Ack{Ack: ack}})
}

// tellStatus says how the node does, after a while and then again and again until ctx ends.
func (a *Agent) tellStatus(ctx context.Context, stream grpc.ClientStream, after time.Duration) {
	time.AfterFunc(after, func() {
		report := &agentv1.StatusReport{Counters: map[string]uint64{"fleet": 1}}
		if ctx.Err() == nil && a.send(stream, &agentv1.SyncRequest{Message: &agentv1.SyncRequest_Status{Status: report}}) == nil {
			a.tellStatus(ctx, stream, a.fleet.cfg.StatusInterval)
		}
	})
}

func (a *Agent) send(stream grpc.ClientStream, request *agentv1.SyncRequest) error {
	a.sending.Lock()
	defer a.sending.Unlock()
	// At EOF the stream has ended: its reader says why.
	if err := stream.SendMsg(request); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

func (a *Agent) disconnect() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.leave != nil {
		a.leave(errDisconnected)
	}
}

// ended notes that a stream has.
func (a *Agent) ended(err error, next move) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.state.Connected, a.state.Err = false, err
	a.stream = nil
	a.held.forgetHalf()
	switch {
	case errors.Is(err, errDrained):
		a.state.Drained++
		if next.atOnce {
			a.state.AtOnce++
		}
	case !errors.Is(err, errDisconnected):
		a.state.Failures++
	}
	a.fleet.move()
}

// cause prefers why the agent left to what gRPC makes of it.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil && !errors.Is(c, context.Canceled) {
		return c
	}
	return err
}

func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
