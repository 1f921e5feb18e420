package datapath

import (
	"context"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// settled is after how long no program can be running that began before a switch. None runs for
	// longer than the kernel lets a CPU stay in an interrupt.
	settled = time.Second
	// graceWait stands in for a grace period where the kernel refuses to wait for one on request.
	graceWait = 100 * time.Millisecond

	membarrierGlobal = 1 // MEMBARRIER_CMD_GLOBAL: waits for an RCU grace period
)

// beginGrace returns a channel that closes when every program has ended that runs now. It is called right
// after a switch, so that the wait is over before the next change comes.
func beginGrace() <-chan struct{} {
	over := make(chan struct{})
	go func() {
		defer close(over)
		if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0); errno != 0 {
			time.Sleep(graceWait)
		}
	}()
	return over
}

// settle waits until no program runs that could still see the idle generation as the one in force.
func (d *Datapath) settle(ctx context.Context) error {
	if time.Since(d.switched) > settled {
		return ctx.Err()
	}
	return awaitGrace(ctx, d.grace)
}

func awaitGrace(ctx context.Context, grace <-chan struct{}) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-grace:
		return nil
	}
}
