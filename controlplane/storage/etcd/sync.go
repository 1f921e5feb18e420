package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

var errNotFound = errors.New("there is no store")

// Sync returns when what was committed before the call is visible here.
func (b *Backend) Sync(ctx context.Context) error {
	bounded, cancel := within(ctx)
	defer cancel()
	late := time.AfterFunc(attemptTimeout, func() { notify(b.kick) })
	defer late.Stop()
	err := b.catchUp(bounded)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("read from etcd: %w", ctx.Err())
	}
	return unavailable(err)
}

// catchUp waits until everything is known that was committed before the call.
func (b *Backend) catchUp(ctx context.Context) error {
	asked := time.Now()
	mod, err := b.syncs.wait(ctx)
	if err != nil {
		return err
	}
	if err := b.await(ctx, func() bool { return b.headMod >= mod }); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if asked.After(b.freshAt) {
		b.freshAt = asked
	}
	return nil
}

// readHeadMod asks the cluster, not one member alone, at which of its revisions head was written last.
func (b *Backend) readHeadMod(ctx context.Context) (mod int64, err error) {
	err = b.cluster.do(ctx, func(ctx context.Context, client *clientv3.Client) error {
		response, err := client.Get(ctx, b.headKey(), clientv3.WithKeysOnly())
		switch {
		case err != nil:
			return err //nolint:wrapcheck // Sync does
		case len(response.Kvs) == 0:
			return errNotFound
		}
		mod = response.Kvs[0].ModRevision
		return nil
	})
	return mod, err
}

// syncs lets callers share reads: one that comes while a read is under way shares the next, since what it asks for may
// be newer.
type syncs struct {
	read func(context.Context) (int64, error)

	mu            sync.Mutex // guards all below
	running, next *sharedRead
}

type sharedRead struct {
	done chan struct{}
	mod  int64
	err  error
}

func (s *syncs) wait(ctx context.Context) (int64, error) {
	s.mu.Lock()
	shared := s.next
	if shared == nil {
		shared = &sharedRead{done: make(chan struct{})}
		if s.running == nil {
			s.start(shared)
		} else {
			s.next = shared
		}
	}
	s.mu.Unlock()
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-shared.done:
		return shared.mod, shared.err
	}
}

// start begins a read, which is nobody's own. It is called under mu.
func (s *syncs) start(shared *sharedRead) {
	s.running = shared
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), commitTimeout)
		defer cancel()
		shared.mod, shared.err = s.read(ctx)
		close(shared.done)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.running = nil
		if next := s.next; next != nil {
			s.next = nil
			s.start(next)
		}
	}()
}
