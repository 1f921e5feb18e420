package syncserver

import "sync"

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
	s.leaving.mu.Lock()
	defer s.leaving.mu.Unlock()
	close(s.leaving.asked)
	s.leaving.asked = make(chan struct{})
}
