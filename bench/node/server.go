package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/ruleset"
)

const (
	storeID  = "bench"
	patience = time.Minute // who says nothing for longer has failed
)

var errSilent = errors.New("the agent says nothing")

// server is a policy server for one agent: it sends what a section has it send, and notes when what arrived.
type server struct {
	agentv1.UnimplementedSyncServiceServer
	grpc     *grpc.Server
	sessions chan *session
	served   chan struct{}
}

func serve(listener net.Listener) *server {
	s := &server{grpc: grpc.NewServer(), sessions: make(chan *session), served: make(chan struct{})}
	agentv1.RegisterSyncServiceServer(s.grpc, s)
	go func() {
		defer close(s.served)
		_ = s.grpc.Serve(listener) // ends with stop
	}()
	return s
}

func (s *server) stop() {
	s.grpc.Stop()
	<-s.served
}

// Sync plays the server's side of a stream until the agent's ends it.
func (s *server) Sync(stream grpc.BidiStreamingServer[agentv1.SyncRequest, agentv1.SyncResponse]) error {
	st := &session{stream: stream, acks: make(chan ack, 1024)}
	if _, err := stream.Recv(); err != nil { // the hello
		return err
	}
	select {
	case s.sessions <- st:
	case <-stream.Context().Done():
		return nil
	}
	for {
		request, err := stream.Recv()
		if err != nil {
			return nil //nolint:nilerr // the agent ended, or was ended
		}
		if err := st.take(request); err != nil {
			return err
		}
	}
}

// accept waits for the agent.
func (s *server) accept(ctx context.Context) (*session, error) {
	select {
	case st := <-s.sessions:
		return st, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(patience):
		return nil, errSilent
	}
}

// session is the stream of one agent.
type session struct {
	stream grpc.BidiStreamingServer[agentv1.SyncRequest, agentv1.SyncResponse]
	acks   chan ack

	mu       sync.Mutex // guards all below, and sending
	revision uint64
	rules    *ruleset.RuleSet
	observed func(at time.Time, mappings []*namewardv1.Mapping)
}

// ack is an answer of the agent to a revision.
type ack struct {
	revision uint64
	at       time.Time
	err      error
}

func (st *session) take(request *agentv1.SyncRequest) error {
	now := time.Now()
	switch message := request.GetMessage().(type) {
	case *agentv1.SyncRequest_Ack:
		st.acks <- ack{revision: message.Ack.GetRevision(), at: now}
	case *agentv1.SyncRequest_Nack:
		st.acks <- ack{revision: message.Nack.GetRevision(), at: now, err: errors.New(message.Nack.GetError())}
	case *agentv1.SyncRequest_Observations:
		st.mu.Lock()
		defer st.mu.Unlock()
		if st.observed != nil {
			st.observed(now, message.Observations.GetMappings())
		}
		return st.stream.Send(&agentv1.SyncResponse{AcknowledgedBatch: message.Observations.GetBatch()})
	}
	return nil
}

// observe has a function told of the mappings that come up.
func (st *session) observe(observed func(at time.Time, mappings []*namewardv1.Mapping)) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.observed = observed
}

// put sends a rule set: whole the first time, then what changed. It returns when sending began.
func (st *session) put(rules *ruleset.RuleSet) (time.Time, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	before, first := st.rules, st.rules == nil
	if first {
		before = &ruleset.RuleSet{}
	}
	changes, id := before.Changes(rules), rules.ID()
	st.revision++
	st.rules = rules
	begun := time.Now()
	for i := range changes {
		if err := st.stream.Send(&agentv1.SyncResponse{StoreId: storeID, Reset_: first && i == 0, Changes: changes[i : i+1]}); err != nil {
			return begun, fmt.Errorf("send change: %w", err)
		}
	}
	if err := st.stream.Send(&agentv1.SyncResponse{Revision: st.revision, RuleSetId: id[:], Complete: true}); err != nil {
		return begun, fmt.Errorf("send revision: %w", err)
	}
	return begun, nil
}

// confirmed waits until the agent says that the last revision is in force, and returns when it did.
func (st *session) confirmed(ctx context.Context) (time.Time, error) {
	for {
		select {
		case a := <-st.acks:
			if a.err != nil {
				return a.at, fmt.Errorf("the agent refused revision %d: %w", a.revision, a.err)
			}
			if a.revision == st.revision {
				return a.at, nil
			}
		case <-ctx.Done():
			return time.Time{}, ctx.Err()
		case <-time.After(patience):
			return time.Time{}, errSilent
		}
	}
}
