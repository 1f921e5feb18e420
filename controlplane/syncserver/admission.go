package syncserver

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// beginnings is how many agents are registered and sent their first rule set at once. When a whole fleet comes, the
	// others wait for their turn, and none so long that it gives up: what they wait for is the processor in any case.
	beginnings = 64
	// admissionTime is how long one may wait for its turn: an agent gives up after a minute, and one that is refused says
	// no hello into a queue that is longer still.
	admissionTime = 45 * time.Second
	// beginningTime is how long one may hold up others. A node that reads slowly goes on without.
	beginningTime = 2 * time.Second
)

// admission has agents begin a few at a time.
type admission struct {
	places   chan struct{}
	patience time.Duration
	waiting  atomic.Int64
}

func newAdmission() *admission {
	return &admission{places: make(chan struct{}, beginnings), patience: admissionTime}
}

// enter waits for a place. The function returned gives it up; it may be called more than once.
func (a *admission) enter(ctx context.Context, stopped <-chan struct{}) (leave func(), err error) {
	a.waiting.Add(1)
	defer a.waiting.Add(-1)
	timer := time.NewTimer(a.patience)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-stopped:
		return nil, errStopping
	case <-timer.C:
		return nil, errBusy
	case a.places <- struct{}{}:
	}
	leave = sync.OnceFunc(func() { <-a.places })
	time.AfterFunc(beginningTime, leave)
	return leave, nil
}
