package publish

import (
	"context"
	"sync/atomic"
	"time"
)

// A fan-out costs its server about the same for one change as for hundreds: while one is under way, what
// changes is gathered. The bounds keep that from adding delay that a person or a machine would notice.
const (
	gatherMin = 5 * time.Millisecond
	gatherMax = 250 * time.Millisecond
)

// fanOut is the time from a publication until the streams that were idle have passed it on.
type fanOut struct {
	start time.Time
	// pending counts the streams that are awaited, and one for the publisher until it has counted all.
	pending atomic.Int64
	done    chan struct{}
}

func newFanOut(start time.Time) *fanOut {
	f := &fanOut{start: start, done: make(chan struct{})}
	f.pending.Store(1)
	return f
}

func (f *fanOut) join()  { f.pending.Add(1) }
func (f *fanOut) begun() { f.leave() }

func (f *fanOut) leave() {
	if f.pending.Add(-1) == 0 {
		close(f.done)
	}
}

// wait returns when the next publication may begin. A nil fan-out was none.
func (f *fanOut) wait(ctx context.Context) {
	if f == nil {
		return
	}
	shortest := time.NewTimer(time.Until(f.start.Add(gatherMin)))
	defer shortest.Stop()
	longest := time.NewTimer(time.Until(f.start.Add(gatherMax)))
	defer longest.Stop()
	select {
	case <-ctx.Done():
		return
	case <-shortest.C:
	}
	select {
	case <-ctx.Done():
	case <-f.done:
	case <-longest.C:
	}
}
