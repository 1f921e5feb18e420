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

// settle waits until no program runs that could still see the idle generation as the one in force.
func (d *Datapath) settle(ctx context.Context) error {
	if time.Since(d.switched) > settled {
		return ctx.Err()
	}
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0); errno == 0 {
		return ctx.Err()
	}
	wait := time.NewTimer(graceWait)
	defer wait.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-wait.C:
		return nil
	}
}
