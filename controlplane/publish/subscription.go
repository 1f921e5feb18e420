package publish

import (
	"sync/atomic"
	"time"
)

// Subscription is the place of one stream among the events of its topic.
type Subscription struct {
	publisher *Publisher
	topic     *topic
	wake      func() // is told of each event; nil for nobody
	// delivered is the last event that the stream was through with.
	delivered atomic.Pointer[Event]
	// awaited is the fan-out that waits for the stream to be through with the next.
	awaited atomic.Pointer[fanOut]
}

// Newest returns what is wanted now, and a channel that closes when something else is.
func (s *Subscription) Newest() (*Event, <-chan struct{}) {
	e := s.topic.newest.Load()
	return e, e.superseded
}

// Delivered says that the stream is through with an event: it has handed it over, or will not.
func (s *Subscription) Delivered(e *Event) {
	s.delivered.Store(e)
	if f := s.awaited.Swap(nil); f != nil {
		s.publisher.latency.Observe(time.Since(e.Time).Seconds())
		f.leave()
	}
}

// Close ends the subscription.
func (s *Subscription) Close() {
	if f := s.awaited.Swap(nil); f != nil {
		f.leave()
	}
	s.publisher.mu.Lock()
	defer s.publisher.mu.Unlock()
	delete(s.topic.subscriptions, s)
	if len(s.topic.subscriptions) == 0 {
		s.topic.idleSince = time.Now()
	}
}

// await makes a fan-out wait for a stream that is through with the event before. One that is not has a
// slow node behind it, and holds nobody up.
func (s *Subscription) await(before *Event, f *fanOut) {
	if s.delivered.Load() != before {
		return
	}
	f.join()
	if late := s.awaited.Swap(f); late != nil {
		late.leave()
	}
	// The stream may have been through with the new event before it could see that it is awaited.
	if s.delivered.Load() != before {
		if f := s.awaited.Swap(nil); f != nil {
			f.leave()
		}
	}
}
