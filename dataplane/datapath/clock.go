package datapath

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/bpf"
)

// The kernel's records carry the boot clock, which counts through a suspend and knows no wall time.
// Times of this process carry a monotonic reading, so that a step of the wall clock moves no expiry.

const (
	tickShift = bpf.DatapathMappingLimitMAPPING_TICK_SHIFT
	tick      = 1 << tickShift // nanoseconds
)

// clock is one reading of both clocks.
type clock struct {
	now  time.Time
	boot uint64 // nanoseconds
}

func readClock() (clock, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return clock{}, fmt.Errorf("read boot clock: %w", err)
	}
	return clock{time.Now(), uint64(ts.Nano())}, nil //nolint:gosec // the boot clock is not negative
}

// fromBoot turns nanoseconds of the boot clock into a time.
func (c clock) fromBoot(ns uint64) time.Time {
	return c.now.Add(time.Duration(ns - c.boot)) //nolint:gosec // wraps to the negative difference
}

// toBoot turns a time into nanoseconds of the boot clock; before boot is 0.
func (c clock) toBoot(t time.Time) uint64 {
	return uint64(max(0, int64(c.boot)+int64(t.Sub(c.now)))) //nolint:gosec // not negative
}

// since turns nanoseconds of the boot clock into a time; before the boot they are negative.
func (c clock) since(ns int64) time.Time {
	return c.now.Add(time.Duration(ns - int64(c.boot))) //nolint:gosec // the boot clock is not that old
}

// onBoot turns a time into nanoseconds of the boot clock; before the boot they are negative.
func (c clock) onBoot(t time.Time) int64 {
	return int64(c.boot) + int64(t.Sub(c.now)) //nolint:gosec // see since
}

func (c clock) fromTicks(ticks uint64) time.Time { return c.fromBoot(ticks << tickShift) }

// toTicks rounds up, as the kernel does. A time that came from ticks gives the same ticks, though the
// two clocks are not read at quite the same moment.
func (c clock) toTicks(t time.Time) uint64 {
	const apart = uint64(time.Millisecond)
	return (c.toBoot(t) + tick - 1 - apart) >> tickShift
}
