package observe_test

import (
	"testing"
	"time"
	"unsafe"

	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/dataplane/observe"
)

// afterStep returns a moment as it reads after somebody set the wall clock: package time has no way to say
// so, and the machine's own clock is everybody's.
func afterStep(t time.Time, step time.Duration) time.Time {
	wall := (*uint64)(unsafe.Pointer(&t)) //nolint:gosec // wall seconds stand above 30 bits of nanoseconds
	*wall += uint64(step/time.Second) << 30
	return t
}

// Times of mappings are told by the wall clock as it is when they are told, and end by none.
func TestTimesAfterAStepOfTheWallClock(t *testing.T) {
	for _, step := range []time.Duration{5 * time.Hour, -5 * time.Hour} {
		learned := time.Now()
		table := observe.NewTable(0, 0)
		a := answer(t, 0, time.Minute, []string{"www.example"}, "192.0.2.1")
		a.LearnedAt, a.ExpiresAt = learned, learned.Add(time.Minute)
		table.Record(a)
		now := afterStep(learned.Add(20*time.Second), step)
		if moved := now.Round(0).Sub(learned.Round(0)); moved != step+20*time.Second {
			t.Fatalf("the wall clock moved by %v", moved)
		}
		live := table.Live(now, nil)
		if len(live) != 1 || table.Expire(now) != 0 {
			t.Fatalf("step of %v: got %v, want the mapping", step, live)
		}
		m := live[0].ToProto(node.ID{}, now)
		if left := m.GetExpireTime().AsTime().Sub(now.Round(0)); left != 40*time.Second {
			t.Errorf("step of %v: told to live for %v, want 40 s", step, left)
		}
		if ago := now.Round(0).Sub(m.GetFirstSeenTime().AsTime()); ago != 20*time.Second || !m.GetLastSeenTime().AsTime().Equal(m.GetFirstSeenTime().AsTime()) {
			t.Errorf("step of %v: told to be seen %v ago, want 20 s", step, ago)
		}
		if table.Expire(afterStep(learned.Add(time.Minute), step)) != 1 {
			t.Errorf("step of %v: it does not end after its minute", step)
		}
	}
}
