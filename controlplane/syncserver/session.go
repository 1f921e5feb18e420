package syncserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/controlplane/publish"
	"github.com/nameward/nameward/controlplane/store"
)

// contactInterval bounds how often observations alone renew the time of the last contact.
const contactInterval = 5 * time.Second

// session is what an agent says on one stream, and what its writer has to know of it.
type session struct {
	server   *Server
	stream   grpc.ServerStream
	writer   *writer
	id       node.ID
	instance string
	peer     string // address and version of the agent, for people
	labels   map[string]string
	log      *slog.Logger
	cancel   context.CancelCauseFunc
	// number orders the claim of the session among those at other servers.
	number int64
	// takeovers are when the agent took over from streams of its own, guarded by claims.mu.
	takeovers []time.Time
	// pace and hurried are of the goroutine that reads.
	pace    pace
	hurried bool
	// expires is when the certificate ends that the agent connects with next, in Unix seconds; 0 for none.
	expires atomic.Int64
	// place is where the wanted revision of the node is kept, and status where what changes in its status is gathered.
	place  *place
	status *gathered
	// decoded has an element when the crew has taken in what the goroutine that reads gave it.
	decoded chan struct{}

	// mu guards all below. It is held while a message is taken in, so that nothing of a session happens
	// after its end.
	mu    sync.Mutex
	ended bool
	// sent is what the stream carries or has carried last.
	sent *publish.Event
	// refused is the content that the node could not apply, zero for none.
	refused ruleset.ID
	resync  bool
	// taken is the highest number of a batch that was taken in.
	taken   uint64
	contact time.Time
	// apart is by how much the node's clock is behind this one, 0 for not worth a word.
	apart time.Duration
	// reported is what the agent said last of its node's faults, contest what is known of other agents.
	reported []string
	contest  contest
	// complained says that an unreadable mapping or flow event was logged: one a session is enough.
	complained bool
	// overstated says the same of a status that was too large.
	overstated bool
}

func newSession(s *Server, stream grpc.ServerStream, cancel context.CancelCauseFunc) *session {
	return &session{server: s, stream: innermost(stream), cancel: cancel, log: s.log, decoded: make(chan struct{}, 1)}
}

func (s *session) identify(ctx context.Context, hello *agentv1.Hello) error {
	if err := checkHello(hello); err != nil {
		s.server.metrics.bounded.Inc()
		return err
	}
	id, err := node.ParseID(hello.GetNode())
	if err != nil {
		return fmt.Errorf("%w: %w", errNoHello, err)
	}
	if err := s.authenticate(ctx, id); err != nil {
		return err
	}
	s.id, s.instance, s.labels = id, hello.GetInstanceId(), maps.Clone(hello.GetLabels())
	s.log = s.log.With("node", id.String())
	return nil
}

// register makes the node known to the store, with what it says it has in force.
func (s *session) register(ctx context.Context, hello *agentv1.Hello) error {
	err := s.server.store.RegisterNode(ctx, store.Node{
		ID: s.id, Labels: s.labels,
		AgentVersion: hello.GetAgentVersion(), Kernel: hello.GetKernel(), IptablesBackend: hello.GetIptablesBackend(),
		TrustedResolvers: s.endpoints("trusted resolver", hello.GetTrustedResolvers()),
	})
	if err != nil {
		return fmt.Errorf("register node: %w", err)
	}
	s.place = s.server.wanted.follow(s.id, s.labels)
	now := time.Now()
	inForce, err := ruleset.ParseID(hello.GetRuleSetId())
	known := err == nil && hello.GetStoreId() == s.server.store.ID()
	err = s.server.statuses.changeNow(s.status, func(status *store.NodeStatus) {
		if status.Claim.Number > s.number {
			return // the agent has gone on to another server already
		}
		status.Claim = store.Claim{Instance: s.instance, Agent: s.peer, Number: s.number, Takeovers: s.takeovers}
		if s.server.peers != nil {
			status.Claim.Server, status.Claim.Address = s.server.peers.Self()
		}
		status.Connected, status.LastContact = true, now
		status.CertificateExpiry = s.certificateExpiry()
		status.RuleSetID = inForce
		if !known {
			// A revision of another store says nothing here.
			status.AppliedRevision, status.AppliedTime = 0, time.Time{}
		} else if status.AppliedRevision != hello.GetRevision() {
			status.AppliedRevision, status.AppliedTime = hello.GetRevision(), now
		}
	})
	if err != nil {
		return err
	}
	s.log.Info("node joined", "agent_version", hello.GetAgentVersion(), "rule_set", inForce.String(), "revision", hello.GetRevision())
	return nil
}

// leave says in the node's status that it is gone.
func (s *session) leave() {
	err := s.server.statuses.changeNow(s.status, func(status *store.NodeStatus) {
		if s.speaksIn(status) {
			status.Connected = false
		}
	})
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		s.log.Error("status not updated", "err", err)
	}
}

// speaksIn reports whether a status is of this session, and not of one at another server.
func (s *session) speaksIn(status *store.NodeStatus) bool {
	return status.Claim.Number == s.number && status.Claim.Instance == s.instance
}

// end makes the session do nothing more, and its stream end with cause.
func (s *session) end(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.cancel(cause)
}

// over gives the node up when the stream has ended.
func (s *session) over(err error) {
	s.writer.left(err)
	s.server.log.Info("node left", "node", s.id.String(), "err", err)
	s.writer.subscription.Close()
	s.end(nil)
	s.server.claims.release(s, s.leave)
}

// read takes in what the agent says behind its hello, until the stream ends.
func (s *session) read(ctx context.Context) error {
	var in incoming
	for {
		if err := s.stream.RecvMsg(&in); err != nil {
			return err //nolint:wrapcheck // a status of gRPC
		}
		cost, err := messageCost, error(nil)
		if in.raw == nil {
			err = s.acknowledge(in.revision, in.id)
		} else {
			cost, err = s.takeDecoded(in.raw)
		}
		if err != nil {
			return err
		}
		s.rest(ctx, cost)
	}
}

// acknowledge takes in that a revision is in force.
func (s *session) acknowledge(revision uint64, id ruleset.ID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return io.EOF
	}
	s.ack(revision, id, time.Now())
	return nil
}

// takeDecoded has the crew decode a message and take it in, and returns what it counts for the node.
func (s *session) takeDecoded(raw []byte) (cost int, err error) {
	s.server.readers.do(func() {
		request := &agentv1.SyncRequest{}
		if err = proto.Unmarshal(raw, request); err != nil {
			err = status.Error(codes.Internal, fmt.Sprintf("read message: %v", err)) // as gRPC says it
		} else {
			err = s.take(request)
		}
		cost = messageCost + len(request.GetObservations().GetMappings()) + len(request.GetObservations().GetFlowEvents())
		s.decoded <- struct{}{}
	})
	<-s.decoded
	return cost, err
}

// rest waits where the node says more than it may.
func (s *session) rest(ctx context.Context, cost int) {
	wait := s.pace.spend(time.Now(), cost)
	if wait == 0 {
		return
	}
	s.server.metrics.paced.Inc()
	if !s.hurried {
		s.hurried = true
		s.log.Warn("node says more than it may and is read more slowly", "a_second", paceSecond)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// take takes in one message.
func (s *session) take(request *agentv1.SyncRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return io.EOF
	}
	now := time.Now()
	switch message := request.GetMessage().(type) {
	case *agentv1.SyncRequest_Ack:
		id, err := ruleset.ParseID(message.Ack.GetRuleSetId())
		if err != nil {
			s.log.Warn("acknowledgement ignored", "revision", message.Ack.GetRevision(), "err", err)
			return nil
		}
		s.ack(message.Ack.GetRevision(), id, now)
	case *agentv1.SyncRequest_Nack:
		s.nack(message.Nack, now)
	case *agentv1.SyncRequest_Observations:
		s.observe(message.Observations, now)
	case *agentv1.SyncRequest_Status:
		s.report(message.Status, now)
	default:
		return errNoHello
	}
	return nil
}

func (s *session) ack(revision uint64, id ruleset.ID, now time.Time) {
	sent := s.sent
	if sent == nil || revision > sent.Revision {
		s.log.Warn("acknowledgement ignored", "revision", revision)
		return
	}
	s.update(now, func(status *store.NodeStatus) {
		s.place.told.Store(sent)
		s.server.wanted.want(status, sent)
		if status.AppliedRevision != revision {
			status.AppliedRevision, status.AppliedTime = revision, now
		}
		status.RuleSetID = id
		if revision >= status.WantedRevision {
			status.LastError = ""
		}
	})
}

func (s *session) nack(nack *agentv1.Nack, now time.Time) {
	s.server.metrics.refusals.Inc()
	if len(nack.GetError()) > maxFault {
		s.bounded("nack")
	}
	reason := cutText(nack.GetError())
	s.log.Warn("node refused a rule set", "revision", nack.GetRevision(), "resync", nack.GetResync(), "err", reason)
	if s.sent == nil {
		return
	}
	sent := s.sent
	switch {
	case nack.GetResync():
		s.resync = true
		s.notify()
	case nack.GetRevision() == sent.Revision:
		s.refused = sent.ID
	}
	s.update(now, func(status *store.NodeStatus) {
		s.server.wanted.want(status, sent)
		status.LastError = reason
	})
}

// notify has the writer look whether there is something to send.
func (s *session) notify() { s.writer.wake() }
