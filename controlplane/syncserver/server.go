// Package syncserver serves the streams of the agents. Rule sets go down from publish, in encodings that
// streams share; acknowledgements go to the store as the node's status, observations to ingest.
package syncserver

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/controlplane/ingest"
	"github.com/nameward/nameward/controlplane/publish"
	"github.com/nameward/nameward/controlplane/store"
)

const (
	// helloTimeout is how long a stream may live without saying whose it is.
	helloTimeout = 10 * time.Second
	drainGrace   = 500 * time.Millisecond
)

// Server serves nameward.agent.v1.SyncService. The grpc.Server must use Codec and Tap.
type Server struct {
	agentv1.UnimplementedSyncServiceServer

	store     *store.Store
	publisher *publish.Publisher
	mappings  *ingest.Table
	flows     *ingest.Flows
	log       *slog.Logger
	claims    *claims
	statuses  *statuses
	wanted    *wanted
	admission *admission
	metrics   metrics
	drainTime time.Duration
	// peers are the other servers on the same storage; nil for none.
	peers Peers

	leaving *leaving
	// writers send, and readers take in what is not an acknowledgement.
	writers, readers *crew

	drainOnce sync.Once
	// draining closes when agents shall leave, stopped when they must.
	draining, stopped chan struct{}
	// gone is when the last agents of a server that stops must leave, in Unix nanoseconds.
	gone atomic.Int64
}

// New returns a server, from which agents get drainTime to leave when it stops.
func New(
	s *store.Store, publisher *publish.Publisher, mappings *ingest.Table, flows *ingest.Flows, drainTime time.Duration, log *slog.Logger,
) *Server {
	claims, admission := newClaims(), newAdmission()
	server := &Server{
		store: s, publisher: publisher, mappings: mappings, flows: flows, log: log,
		claims: claims, admission: admission, drainTime: drainTime,
		draining: make(chan struct{}), stopped: make(chan struct{}), leaving: newLeaving(),
		writers: newCrew(max(1, runtime.GOMAXPROCS(0)/2)), readers: newCrew(runtime.GOMAXPROCS(0)),
	}
	server.metrics = newMetrics(claims, admission, server.Draining)
	server.statuses = newStatuses(s, server.forget)
	server.wanted = newWanted(s, publisher, server.statuses)
	return server
}

// Run keeps what is known of the nodes true, connected or not, until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.wanted.run(ctx) })
	g.Go(func() error { return s.statuses.run(ctx) })
	return g.Wait() //nolint:wrapcheck // each says what it did
}

// Join has the server take note of others on the same storage. It is called before anything is served.
func (s *Server) Join(peers Peers) {
	s.peers = peers
	s.wanted.self, _ = peers.Self()
}

// forget ends what there is of a node that the store does not know: its agent registers with its next stream.
func (s *Server) forget(id node.ID) {
	s.wanted.forget(id)
	s.claims.end(id, errForgotten)
}

// settleTimeout bounds how long a reader of node status waits for it to be true.
const settleTimeout = 2 * time.Second

// AwaitWanted returns when the status of every node reflects the policies and domain sets as they are now, so
// that who changed one and then asks sees what it wants of each node.
func (s *Server) AwaitWanted(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	s.wanted.await(ctx, s.store.RulesRevision())
	if err := s.statuses.write(); err != nil {
		s.log.Error("status not updated", "err", err)
	}
}

// Drain asks the agents to leave, waits until they have or their time is over, and ends what streams are
// left. No stream begins afterwards.
func (s *Server) Drain() {
	// Those that chose the last moment still need one to go.
	left := s.drainTime + drainGrace
	s.drainOnce.Do(func() {
		s.gone.Store(time.Now().Add(left).UnixNano())
		close(s.draining)
	})
	s.claims.notify()
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-s.claims.empty():
	case <-timer.C:
	}
	close(s.stopped)
	s.claims.endAll(errStopping)
}

// Collectors returns the metrics.
func (s *Server) Collectors() []prometheus.Collector { return s.metrics.collectors() }

// Sync is one stream: see the protocol in sync_service.proto.
func (s *Server) Sync(stream grpc.BidiStreamingServer[agentv1.SyncRequest, agentv1.SyncResponse]) error {
	return toStatus(s.log, s.serve(stream))
}

// serve lives as long as the stream, and so does the stack that it once needed: what needs much is done on other
// goroutines, and what receives is this one.
func (s *Server) serve(stream grpc.BidiStreamingServer[agentv1.SyncRequest, agentv1.SyncResponse]) error {
	ctx := stream.Context()
	end := enderOf(ctx)
	if end == nil {
		return errNotTapped
	}
	// Who judges callers ends a context that was made of the first.
	defer context.AfterFunc(ctx, func() {
		if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
			end.end(cause)
		}
	})()
	hello, err := s.greet(ctx, stream)
	if err != nil {
		return err
	}
	session := newSession(s, stream, end.end)
	if err := s.attend(ctx, session, hello); err != nil {
		return err
	}
	cause, told := end.causeOf(session.read(ctx))
	session.over(cause)
	return told
}

// greet waits for the agent to say who it is.
func (s *Server) greet(ctx context.Context, stream grpc.BidiStreamingServer[agentv1.SyncRequest, agentv1.SyncResponse]) (*agentv1.Hello, error) {
	came, failed := make(chan *agentv1.Hello, 1), make(chan error, 1)
	// It outlives this function by what it takes to see that the stream has ended.
	go func() {
		first, err := stream.Recv()
		switch {
		case err != nil:
			failed <- err
		case first.GetHello() == nil:
			failed <- errNoHello
		default:
			came <- first.GetHello()
		}
	}()
	timer := time.NewTimer(helloTimeout)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case err := <-failed:
		return nil, err
	case <-s.draining:
		return nil, s.refuseStopping()
	case <-timer.C:
		return nil, errHelloLate
	case hello := <-came:
		if s.Draining() {
			return nil, s.refuseStopping()
		}
		return hello, nil
	}
}

// attend has an agent that has said who it is speak for its node, and sends it what it wants.
func (s *Server) attend(ctx context.Context, session *session, hello *agentv1.Hello) error {
	joined := make(chan error, 1)
	go func() {
		begun, err := s.join(ctx, session, hello)
		defer begun()
		joined <- err
		if err == nil {
			session.writer.start(hello, begun)
		}
	}()
	if err := <-joined; err != nil {
		return err
	}
	select {
	case <-s.stopped: // before the session could be ended with the others
		session.end(errStopping)
	default:
	}
	return nil
}

// join makes the session the one that speaks for its node. The function returned gives up the place among those that
// begin.
func (s *Server) join(ctx context.Context, session *session, hello *agentv1.Hello) (begun func(), err error) {
	begun = func() {}
	if err := session.identify(ctx, hello); err != nil {
		return begun, err
	}
	session.peer = "of version " + hello.GetAgentVersion()
	if from, ok := peer.FromContext(ctx); ok {
		session.peer += " at " + from.Addr.String()
	}
	begun, err = s.admission.enter(ctx, s.draining)
	switch {
	case errors.Is(err, errStopping):
		return func() {}, s.refuseStopping()
	case errors.Is(err, errBusy):
		s.metrics.refusedBusy.Inc()
	}
	if err != nil {
		return func() {}, err
	}
	if err := s.catchUpWith(ctx, hello); err != nil {
		return begun, err
	}
	session.writer, session.status = newWriter(session), s.statuses.of(session.id)
	if err := s.claim(session); err != nil {
		s.metrics.refusedClaims.Inc()
		s.log.Warn("second agent refused", "node", session.id.String(), "agent", session.peer)
		return begun, err
	}
	if err := session.register(ctx, hello); err != nil {
		session.end(nil)
		s.claims.release(session, session.leave)
		return begun, err
	}
	session.writer.subscription = s.publisher.Follow(session.labels, session.writer.wake)
	return begun, nil
}
