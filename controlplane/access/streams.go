package access

import (
	"context"
	"sync"
)

// streams are those that run: a role that was taken away ends what was begun with it.
type streams struct {
	mu      sync.Mutex
	running map[*stream]struct{} // guarded by mu
}

type stream struct {
	caller Caller
	method string
	end    context.CancelCauseFunc
}

func newStreams() *streams { return &streams{running: map[*stream]struct{}{}} }

// begin takes note of a stream until it is over.
func (s *streams) begin(ctx context.Context, caller Caller, method string) (running context.Context, over func()) {
	running, cancel := context.WithCancelCause(ctx)
	begun := &stream{caller, method, cancel}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running[begun] = struct{}{}
	return running, func() {
		cancel(context.Canceled)
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.running, begun)
	}
}

// all returns the streams that run.
func (s *streams) all() []*stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*stream, 0, len(s.running))
	for running := range s.running {
		list = append(list, running)
	}
	return list
}

// rejudge ends the streams whose caller may no longer have them.
func (g *Guard) rejudge() {
	for _, running := range g.streams.all() {
		if _, _, err := g.allow(running.caller, running.method); err != nil {
			running.end(err)
		}
	}
}
