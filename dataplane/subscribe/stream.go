package subscribe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/proto"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	"github.com/nameward/nameward/dataplane/enforce"
)

const (
	// An acknowledgement waits for ackDelay, and a random part of ackSpread, and is of all that came meanwhile: less than
	// ten a second. Those of a fleet, which a change reaches at once, so do not come back while the server still tells
	// others; and not so far apart that each has to wake it.
	ackDelay             = 100 * time.Millisecond
	ackSpread            = 25 * time.Millisecond
	firstResponseTimeout = time.Minute
	maxResponse          = 64 << 20 // bytes: a rule set of 131,072 long patterns, whole
	// Static windows: gRPC then does not ping to estimate the bandwidth.
	windowSize = 1 << 20
)

var (
	errDrained = errors.New("the server asked to leave")
	errTimeout = errors.New("the server did not answer the hello")

	errOtherStore = errors.New("the server's store is another one, without a policy for this node")
)

// stream is one stream to one server.
type stream struct {
	client     grpc.BidiStreamingClient[agentv1.SyncRequest, agentv1.SyncResponse]
	reconciler Reconciler
	refused    func(err error)           // takes why what the server wants is not taken; nil when it is
	hold       func(asked time.Duration) // leaves the server alone once the stream has ended
	sending    sync.Mutex                // a stream takes one message at a time

	mu      sync.Mutex // guards storeID
	storeID string     // that the server's revisions are of
}

// stream runs one stream until it ends, and says why.
func (s *Subscriber) stream(ctx context.Context, server string) error {
	conn, err := s.client(ctx, server)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	client, err := agentv1.NewSyncServiceClient(conn).Sync(ctx)
	if err != nil {
		return fmt.Errorf("open stream: %w", err)
	}
	err = s.talk(ctx, cancel, server, &stream{
		client: client, reconciler: s.reconciler, refused: s.refused, hold: func(asked time.Duration) { s.hold(server, asked) },
	})
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

// client makes a client of a server, which connects when it is used.
func (s *Subscriber) client(ctx context.Context, server string) (*grpc.ClientConn, error) {
	addresses, err := s.resolver.resolve(ctx, server)
	if err != nil {
		return nil, err
	}
	if err := s.cfg.Permit(s.resolver.all()); err != nil {
		return nil, fmt.Errorf("permit connections to the server: %w", err)
	}
	options := append([]grpc.DialOption{
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx, addresses) }),
		grpc.WithInitialWindowSize(windowSize),
		grpc.WithInitialConnWindowSize(windowSize),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxResponse)),
		grpc.WithNoProxy(),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: grpcbackoff.DefaultConfig, MinConnectTimeout: connectTimeout}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: quietTime, Timeout: silenceTimeout}),
	}, s.cfg.DialOptions...)
	conn, err := grpc.NewClient("passthrough:///"+server, options...)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	return conn, nil
}

// talk says hello, then does everything that a stream is for until one part of it fails.
func (s *Subscriber) talk(ctx context.Context, cancel context.CancelCauseFunc, server string, stream *stream) error {
	state, _ := s.reconciler.State()
	if err := stream.hello(s.cfg.Hello, state.InForce); err != nil {
		return err
	}
	patience := time.AfterFunc(firstResponseTimeout, func() { cancel(errTimeout) })
	defer patience.Stop()
	first, err := stream.client.Recv()
	if err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	patience.Stop()
	s.holds.release(server)

	replica := newReplica(state.InForce)
	acknowledged := make(chan uint64, 1)
	if err := stream.take(replica, first, acknowledged, cancel); err != nil {
		return err
	}
	s.connected(server)
	group, ctx := errgroup.WithContext(ctx)
	// Recv knows no ctx of the group.
	group.Go(func() error { return stream.receive(replica, acknowledged, cancel) })
	group.Go(func() error { return stream.confirm(ctx, state) })
	group.Go(func() error { return s.reporter.Report(ctx, stream.send, acknowledged) })
	group.Go(func() error { return s.goHome(ctx, server, cancel) })
	stop := context.AfterFunc(ctx, func() { cancel(nil) })
	defer stop()
	return group.Wait()
}

func (st *stream) hello(who *agentv1.Hello, held *enforce.Revision) error {
	hello := proto.CloneOf(who)
	hello.Capabilities = []agentv1.Hello_Capability{agentv1.Hello_PACKED_CHANGES}
	if held != nil {
		hello.StoreId, hello.Revision, hello.RuleSetId = held.StoreID, held.Number, held.ID[:]
	}
	return st.send(&agentv1.SyncRequest{Message: &agentv1.SyncRequest_Hello{Hello: hello}})
}

func (st *stream) send(request *agentv1.SyncRequest) error {
	st.sending.Lock()
	defer st.sending.Unlock()
	// At EOF the stream has ended: Recv says why, and ends what runs on it.
	if err := st.client.Send(request); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

func (st *stream) receive(replica *replica, acknowledged chan uint64, leave context.CancelCauseFunc) error {
	for {
		response, err := st.client.Recv()
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		if err := st.take(replica, response, acknowledged, leave); err != nil {
			return err
		}
	}
}

func (st *stream) take(replica *replica, response *agentv1.SyncResponse, acknowledged chan uint64, leave context.CancelCauseFunc) error {
	if batch := response.GetAcknowledgedBatch(); batch != 0 {
		select {
		case <-acknowledged: // nobody read it, and this one is newer
		default:
		}
		acknowledged <- batch
	}
	st.hold(response.GetRetryAfter().AsDuration())
	if response.GetDrain() != nil {
		limit := max(response.GetDrain().AsDuration(), time.Millisecond)
		asked := &drained{response.GetDrainServers()}
		time.AfterFunc(rand.N(limit), func() { leave(asked) })
	}
	revision, err := replica.take(response)
	st.mu.Lock()
	st.storeID = replica.storeID
	st.mu.Unlock()
	if f, ok := errors.AsType[*fault](err); ok {
		return st.refuse(f)
	}
	if err != nil {
		return err
	}
	if response.GetResumed() {
		st.refused(nil) // it is the right store
	}
	if revision == nil {
		return nil
	}
	if err := st.takesAll(revision); err != nil {
		st.refused(err)
		return st.refuse(&fault{revision: revision.Number, err: err})
	}
	st.refused(nil)
	st.reconciler.Want(revision)
	return nil
}

// takesAll refuses an empty rule set of another store than the one whose policies are in force: a server
// that lost its disk, or is not the one that was meant, has nothing to say of this node (ADR 25).
func (st *stream) takesAll(revision *enforce.Revision) error {
	state, _ := st.reconciler.State()
	held := state.InForce
	if held == nil || held.StoreID == "" || held.StoreID == revision.StoreID || len(held.Rules.Policies) == 0 || len(revision.Rules.Policies) > 0 {
		return nil
	}
	return fmt.Errorf("%w: the %d policies of revision %d of store %s stay in force", errOtherStore, len(held.Rules.Policies), held.Number, held.StoreID)
}

// refuse tells the server of a revision that did not come to the reconciler. A whole one that came
// out wrong ends the stream: the next attempt waits longer.
func (st *stream) refuse(f *fault) error {
	err := st.nack(f.revision, f.err, f.resync)
	if err == nil && !f.resync && errors.Is(f.err, errWrongContent) {
		err = f
	}
	return err
}

// confirm acknowledges what comes in force, the highest alone and after a while, and refuses at once
// what does not.
func (st *stream) confirm(ctx context.Context, before enforce.State) error {
	acked, refused := before.InForce, before.Refusal
	var due <-chan time.Time
	for {
		state, changed := st.reconciler.State()
		if state.Refusal != nil && (refused == nil || state.Refusal.Revision != refused.Revision) && st.owns(state.Refusal.Revision) {
			refused = state.Refusal
			if err := st.nack(refused.Revision.Number, refused.Err, false); err != nil {
				return err
			}
		}
		unsaid := state.InForce != acked && st.owns(state.InForce)
		if unsaid && due == nil {
			due = time.After(ackDelay + rand.N(ackSpread))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-due:
			due = nil
			if !unsaid {
				continue
			}
			acked = state.InForce
			if err := st.ack(acked); err != nil {
				return err
			}
		}
	}
}

// owns reports whether a revision is of the server's store: after a change of stores, what is still in
// force is none that this server knows.
func (st *stream) owns(revision *enforce.Revision) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return revision != nil && revision.StoreID == st.storeID
}

func (st *stream) ack(revision *enforce.Revision) error {
	return st.send(&agentv1.SyncRequest{Message: &agentv1.SyncRequest_Ack{Ack: &agentv1.Ack{
		Revision: revision.Number, RuleSetId: revision.ID[:],
	}}})
}

func (st *stream) nack(revision uint64, reason error, resync bool) error {
	return st.send(&agentv1.SyncRequest{Message: &agentv1.SyncRequest_Nack{Nack: &agentv1.Nack{
		Revision: revision, Error: reason.Error(), Resync: resync,
	}}})
}
