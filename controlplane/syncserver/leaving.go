package syncserver

import (
	"errors"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
)

// leaving has agents asked to go to another server while this one goes on.
type leaving struct {
	mu    sync.Mutex // guards asked
	asked chan struct{}
}

func newLeaving() *leaving { return &leaving{asked: make(chan struct{})} }

// channel returns one that is closed when agents that are connected now shall leave.
func (l *leaving) channel() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.asked
}

// Leave asks the agents that are connected to go to another server, each at a random moment of the drain time. Who
// comes back is served.
func (s *Server) Leave() {
	s.leaving.ask()
	s.claims.notify()
}

func (l *leaving) ask() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.asked)
	l.asked = make(chan struct{})
}

// Draining reports whether the server is about to stop: its agents leave, and none begins.
func (s *Server) Draining() bool {
	select {
	case <-s.draining:
		return true
	default:
		return false
	}
}

// refuseStopping refuses an agent that comes to a server which is about to stop.
func (s *Server) refuseStopping() error {
	s.metrics.refusedStopping.Inc()
	return &againError{errStopping, s.untilGone(time.Now())}
}

// untilGone returns how long a server that stops has left at most. Until then it begins no stream.
func (s *Server) untilGone(now time.Time) time.Duration {
	return max(goneAgain, time.Unix(0, s.gone.Load()).Sub(now))
}

// ask asks the agent to leave, and says where to go.
func (w *writer) ask() error {
	if w.asked.CompareAndSwap(false, true) {
		w.session.server.metrics.asked.Inc()
	}
	response := &agentv1.SyncResponse{Drain: durationpb.New(w.session.server.drainTime)}
	if w.session.server.Draining() {
		response.RetryAfter = durationpb.New(w.session.server.untilGone(time.Now()))
	}
	if peers := w.session.server.peers; peers != nil {
		response.DrainServers = peers.Others()
	}
	return w.send(response)
}

// left counts what became of an agent that was asked to leave.
func (w *writer) left(err error) {
	switch {
	case !w.asked.Load():
	case errors.Is(err, errStopping):
		w.session.server.metrics.cutOff.Inc()
	default:
		w.session.server.metrics.left.Inc()
	}
}
