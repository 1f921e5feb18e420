package datapath

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	tickInterval    = time.Second
	expiryLookahead = 5 * time.Second  // mappings that may expire before the next ticks
	collectInterval = 30 * time.Second // between two passes over all mappings
	tightInterval   = 3 * time.Second  // the same while there is little room
	warnInterval    = time.Minute      // between two warnings of what goes on
	retryInterval   = 100 * time.Millisecond

	// gatherInterval is how long events gather in the ring buffer while they keep coming. An application
	// connects in the moment after its answer was learned: the agent must not want a CPU just then, and
	// many events at once cost less.
	gatherInterval = 10 * time.Millisecond
)

// Run hands on what the programs learn, watches the node's interfaces and collects what expired, until
// ctx ends.
func (d *Datapath) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.readEvents(ctx) })
	g.Go(func() error { return d.watchLinks(ctx) })
	g.Go(func() error { return d.collectExpired(ctx) })
	return g.Wait()
}

// readEvents drains the ring buffer a moment after there is something in it.
func (d *Datapath) readEvents(ctx context.Context) (err error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("make event descriptor: %w", err)
	}
	// The descriptor must not be closed while AfterFunc may still write to it.
	written := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(written)
		_, _ = unix.Write(wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	})
	defer func() {
		if !stop() {
			<-written
		}
		err = errors.Join(err, unix.Close(wake))
	}()
	for ctx.Err() == nil {
		idle := false
		if err := d.locked(func() error {
			idle = d.events.available() == 0
			return d.drain()
		}); err != nil {
			return err
		}
		if idle {
			ready := []unix.PollFd{
				{Fd: int32(d.kernel.Events.FD()), Events: unix.POLLIN}, //nolint:gosec // a descriptor
				{Fd: int32(wake), Events: unix.POLLIN},                 //nolint:gosec // a descriptor
			}
			if _, err := unix.Poll(ready, -1); err != nil && !errors.Is(err, unix.EINTR) {
				return fmt.Errorf("wait for events: %w", err)
			}
		}
		_ = wait(ctx, gatherInterval) // the loop sees that ctx ended
	}
	return nil
}

// collectExpired forgets what expired, here and in the kernel.
func (d *Datapath) collectExpired(ctx context.Context) error {
	tick := time.NewTicker(tickInterval)
	defer tick.Stop()
	collected, interval := time.Now(), collectInterval
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		clock, err := readClock()
		if err != nil {
			return err
		}
		d.prolong(clock, clock.now.Add(expiryLookahead))
		d.table.Expire(clock.now)
		_ = d.locked(func() error { return d.mendJournal(clock) })
		if err := d.locked(d.forgetSettled); err != nil {
			d.log.Warn("match sets of the rule set before are not forgotten", "err", err)
		}
		if err := d.prepareNext(); err != nil {
			d.log.Warn("the next change of rules is not prepared", "err", err)
		}
		if time.Since(collected) < interval && !d.growsFast() {
			continue
		}
		tight, err := d.collect(clock)
		if err != nil {
			d.log.Warn("expired mappings are not collected", "err", err)
		}
		collected, interval = time.Now(), collectInterval
		if tight {
			interval = tightInterval
		}
	}
}

// pause waits a little before something is tried again.
func (d *Datapath) pause(ctx context.Context) error { return wait(ctx, retryInterval) }

func wait(ctx context.Context, interval time.Duration) error {
	timer := time.NewTimer(interval)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
