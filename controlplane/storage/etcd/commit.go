package etcd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nameward/nameward/controlplane/storage"
)

const (
	// groupOperations and groupBytes bound a transaction: etcd takes 128 operations and 1.5 MiB.
	groupOperations = 100
	groupBytes      = 1 << 20
)

// commit is a caller's operations on their way.
type commit struct {
	id         string
	operations []storage.Operation
	applied    func(revision uint64)
	size       int
	done       chan struct{} // closed when err is set

	// All below is guarded by Backend.mu, but err behind done, and what only the goroutine that commits uses.
	// withdrawn says that the caller has gone and nothing was sent, sent that it may be in force.
	withdrawn, sent bool
	ended           bool
	err             error
	// base is Backend.headMod with which it was sent last.
	base     int64
	revision uint64
	// entry is the id of what was staged, for a commit that is too large for one transaction.
	entry string
}

// end tells the caller. It may be called more than once; the first counts. It is called under Backend.mu, or where
// nobody else knows of the commit.
func (c *commit) end(err error) {
	if !c.ended {
		c.ended, c.err = true, err
		close(c.done)
	}
}

// Commit makes the operations durable as one revision, and returns when the watch has brought it.
func (b *Backend) Commit(ctx context.Context, operations []storage.Operation, applied func(uint64)) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	began := time.Now()
	defer func() { b.metrics.waited.Observe(time.Since(began).Seconds()) }()
	c := &commit{operations: operations, applied: applied, done: make(chan struct{})}
	for _, operation := range operations {
		c.size += len(operation.Key) + len(operation.Value) + headerRoom
	}
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return storage.ErrClosed
	}
	b.serial++
	c.id = fmt.Sprintf("%s-%d", b.id, b.serial)
	b.pending = append(b.pending, c)
	b.mu.Unlock()
	notify(b.waiting)
	timer := time.NewTimer(commitTimeout + stagingTime(c.size))
	defer timer.Stop()
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return b.giveUp(c, ctx.Err())
	case <-timer.C:
		return b.giveUp(c, context.DeadlineExceeded)
	}
}

// headerRoom is what an operation needs beside key and value, at most.
const headerRoom = 64

// giveUp returns what is known of a commit whose caller waits no longer.
func (b *Backend) giveUp(c *commit, reason error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case c.ended:
		return c.err
	case c.sent:
		b.metrics.unknown.Inc()
		c.end(storage.ErrUnknownOutcome)
		return fmt.Errorf("%w: %w", storage.ErrUnknownOutcome, reason)
	}
	c.withdrawn = true
	c.end(reason)
	if errors.Is(reason, context.Canceled) {
		return fmt.Errorf("commit: %w", reason)
	}
	return unavailable(reason)
}

// commitAll writes what waits, a group at a time, until ctx ends.
func (b *Backend) commitAll(ctx context.Context) error {
	for {
		group := b.take()
		if len(group) == 0 {
			select {
			case <-ctx.Done():
				return nil
			case <-b.waiting:
			}
			continue
		}
		began := time.Now()
		err := b.write(ctx, group)
		b.metrics.written(began, len(group), err)
		if err != nil {
			b.cfg.Log.Warn("commits not written", "commits", len(group), "err", err)
		}
	}
}

// take removes the next group from the queue: what fits into one transaction, in which no key is twice; or one commit
// that needs more.
func (b *Backend) take() []*commit {
	b.mu.Lock()
	defer b.mu.Unlock()
	var group []*commit
	keys := map[string]bool{}
	size, operations := 0, 0
	for len(b.pending) > 0 {
		c := b.pending[0]
		if c.withdrawn {
			b.pending = b.pending[1:]
			continue
		}
		size, operations = size+c.size, operations+len(c.operations)
		overlaps := false
		for _, operation := range c.operations {
			overlaps = overlaps || keys[operation.Key]
			keys[operation.Key] = keys[operation.Key] || !operation.Looks
		}
		if len(group) > 0 && (overlaps || size > groupBytes || operations > groupOperations || b.isLarge(c)) {
			break
		}
		b.pending = b.pending[1:]
		group = append(group, c)
		if b.isLarge(c) {
			break
		}
	}
	return group
}

// isLarge reports whether a commit needs more than a transaction, or is about what such a one has written and is not
// folded yet. It is called under mu.
func (b *Backend) isLarge(c *commit) bool {
	if c.size > groupBytes || len(c.operations) > groupOperations {
		return true
	}
	for _, operation := range c.operations {
		if operation.Looks {
			continue
		}
		if b.index[operation.Key].parts > 1 {
			return true
		}
		for _, e := range b.entries {
			if e.keys[operation.Key] {
				return true
			}
		}
	}
	return false
}

// write has the group in force, or says to each caller why not. An error says that no answer came.
func (b *Backend) write(ctx context.Context, group []*commit) error {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout+stagingTime(group[0].size))
	defer cancel()
	for lost := 0; ; lost++ {
		if lost > 2 {
			// Others are faster again and again: not to meet them at the same moment once more.
			select {
			case <-ctx.Done():
			case <-time.After(rand.N(time.Duration(lost) * time.Millisecond)):
			}
		}
		group = b.admit(group)
		if len(group) == 0 {
			return nil
		}
		if err := b.stage(ctx, group); err != nil {
			return b.fail(group, err)
		}
		group, then, guards := b.prepare(group)
		if len(group) == 0 {
			continue
		}
		seen, err := b.transact(ctx, guards, then)
		if err != nil {
			return b.fail(group, err)
		}
		// What became of it comes by the watch, alike for all: what this transaction did, or one before it whose answer
		// was lost.
		late := time.AfterFunc(attemptTimeout, func() { notify(b.kick) })
		err = b.await(ctx, func() bool { return b.headMod >= seen })
		late.Stop()
		if err != nil {
			return b.fail(group, err)
		}
	}
}

// admit returns the commits that go on: not those that are in force, whose caller has gone before anything was sent,
// or that find something else than they expect.
func (b *Backend) admit(group []*commit) []*commit {
	b.mu.Lock()
	defer b.mu.Unlock()
	var left []*commit
	object := func(key string) uint64 { return b.index[key].revision }
	collection := func(name string) uint64 { return b.head.Collections[name] }
	for _, c := range group {
		if c.ended {
			continue
		}
		var err error
		for _, operation := range c.operations {
			if err = operation.Met(object, collection); err != nil {
				break
			}
		}
		if err != nil {
			delete(b.own, c.id)
			c.end(err)
			continue
		}
		left = append(left, c)
	}
	return left
}

// prepare makes the transaction of a group, against the state as it is now.
func (b *Backend) prepare(group []*commit) (left []*commit, then []clientv3.Op, guards []clientv3.Cmp) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range group {
		// One that has become large goes alone, in the next round.
		if !c.ended && (c.entry != "" || !b.isLarge(c)) {
			left = append(left, c)
		} else if !c.ended {
			b.pending = append([]*commit{c}, b.pending...)
			notify(b.waiting)
		}
	}
	if len(left) == 0 {
		return nil, nil, nil
	}
	guards = []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(b.headKey()), "=", b.headMod)}
	next := b.head.next(left)
	then = []clientv3.Op{clientv3.OpPut(b.headKey(), next.encode())}
	for _, c := range left {
		c.sent, c.base = true, b.headMod
		b.own[c.id] = c
		if c.entry != "" {
			guards = append(guards, clientv3.Compare(clientv3.CreateRevision(b.stagingKey(c.entry)), ">", 0))
			then = append(then, clientv3.OpDelete(b.stagingKey(c.entry)), clientv3.OpPut(b.entryKey(c.entry), entryHeader(c)))
			continue
		}
		for _, operation := range c.operations {
			switch {
			case operation.Looks:
			case operation.Value == nil:
				then = append(then, clientv3.OpDelete(b.objectKey(operation.Key)))
			default:
				record := storage.Record{Key: operation.Key, Revision: c.revision, Value: operation.Value}
				then = append(then, clientv3.OpPut(b.objectKey(operation.Key), string(parts(record)[0])))
			}
		}
	}
	return left, then, guards
}

// transact writes, if the guards hold, and returns at which of etcd's revisions head was written last, by this or by
// another. It may be sent twice: after the first the guard of head does not hold.
func (b *Backend) transact(ctx context.Context, guards []clientv3.Cmp, then []clientv3.Op) (headMod int64, err error) {
	err = b.cluster.do(ctx, func(ctx context.Context, client *clientv3.Client) error {
		response, err := client.Txn(ctx).If(guards...).Then(then...).Else(clientv3.OpGet(b.headKey(), clientv3.WithKeysOnly())).Commit()
		if err != nil {
			return err //nolint:wrapcheck // fail does
		}
		headMod = response.Header.Revision
		if !response.Succeeded {
			headMod = 0
			for _, kv := range response.Responses[0].GetResponseRange().Kvs {
				headMod = kv.ModRevision
			}
		}
		return nil
	})
	return headMod, err
}

// fail tells the callers of a group. What was sent and got no answer may be in force, now or later, until another
// commit is.
func (b *Backend) fail(group []*commit, err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range group {
		switch {
		case c.ended:
		case isAnswer(err):
			// etcd refused it.
			delete(b.own, c.id)
			c.end(unavailable(err))
		case c.sent:
			b.metrics.unknown.Inc()
			c.end(fmt.Errorf("%w: etcd: %w", storage.ErrUnknownOutcome, err))
		default:
			c.end(unavailable(err))
		}
	}
	return err
}
