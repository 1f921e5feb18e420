package publish

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// A fan-out costs its server about the same for one change as for hundreds: while one is under way, what
// changes is gathered. The bounds keep that from adding delay that a person or a machine would notice, more of it
// where a fan-out goes to so many streams that it takes its time: without a pause between fan-outs, nothing else would
// get a turn, and least of all the writes.
const (
	gatherMin       = 5 * time.Millisecond
	gatherMax       = 250 * time.Millisecond
	gatherMaxStream = 500 * time.Microsecond // more for each stream
	// stragglers is one of how many streams is not waited for: a few slow ones delay nobody.
	stragglers = 16
)

// The next fan-out waits a few times as long where revisions come faster than fan-outs: what is passed on is still on its
// way through connections and nodes when streams are through. Without a pause, fan-outs take all of the time and each
// takes longer: waiting costs no delay, up to a point. In a burst, where fan-outs would leave no time for what makes
// revisions, it is to cost some.
const (
	steadyRevisions, steadyFactor = 2, 2
	burstRevisions, burstFactor   = 8, 4
	burstRate                     = 100 // revisions a second
)

// fanOut is the time from a publication until the streams that were idle have passed it on.
type fanOut struct {
	start     time.Time
	revisions uint64 // that it has
	rate      float64
	// pending counts the streams that are awaited, and one for the publisher until it has counted all.
	pending atomic.Int64
	streams int64        // that were awaited; the publisher's until begun
	few     atomic.Int64 // of which nobody waits
	through sync.Once
	done    chan struct{}
}

// newFanOut is of revisions that came within a time.
func newFanOut(start time.Time, revisions uint64, within time.Duration) *fanOut {
	f := &fanOut{start: start, revisions: revisions, rate: float64(revisions) / within.Seconds(), done: make(chan struct{})}
	f.pending.Store(1)
	return f
}

func (f *fanOut) join() {
	f.streams++
	f.pending.Add(1)
}

func (f *fanOut) begun() {
	f.few.Store(f.streams / stragglers)
	f.leave()
}

func (f *fanOut) leave() {
	if f.pending.Add(-1) <= f.few.Load() {
		f.through.Do(func() { close(f.done) })
	}
}

// factor says how many times as long as the fan-out takes the next one waits.
func (f *fanOut) factor() time.Duration {
	switch {
	case f.revisions >= burstRevisions && f.rate >= burstRate:
		return burstFactor
	case f.revisions >= steadyRevisions:
		return steadyFactor
	}
	return 1
}

// wait returns when the next publication may begin. A nil fan-out was none.
func (f *fanOut) wait(ctx context.Context) {
	if f == nil {
		return
	}
	shortest := time.NewTimer(time.Until(f.start.Add(gatherMin)))
	defer shortest.Stop()
	longest := time.NewTimer(time.Until(f.start.Add(gatherMax + time.Duration(f.streams)*gatherMaxStream)))
	defer longest.Stop()
	select {
	case <-ctx.Done():
		return
	case <-shortest.C:
	}
	select {
	case <-ctx.Done():
		return
	case <-f.done:
	case <-longest.C:
		return
	}
	factor := f.factor()
	if factor == 1 {
		return
	}
	spread := time.NewTimer((factor - 1) * time.Since(f.start))
	defer spread.Stop()
	select {
	case <-ctx.Done():
	case <-spread.C:
	case <-longest.C:
	}
}
