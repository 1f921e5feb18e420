package bolt

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/nameward/nameward/controlplane/storage"
)

const (
	// groupOperations bounds a transaction, and so how long the first of a group waits for the last.
	groupOperations = 256
	// gatherTime bounds how long a leader waits for others to join.
	gatherTime = 2 * time.Millisecond
)

// commit is a caller's operations on their way to disk.
type commit struct {
	operations []storage.Operation
	applied    func(revision uint64)
	// done is closed when revision and err are set.
	done     chan struct{}
	revision uint64
	err      error
}

func (c *commit) isDone() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// Commit makes the operations durable as one revision. There is no writer goroutine: of the callers that
// wait, one leads and writes a group for all.
func (b *Backend) Commit(ctx context.Context, operations []storage.Operation, applied func(uint64)) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	c := &commit{operations: operations, applied: applied, done: make(chan struct{})}
	began := time.Now()
	defer func() { b.metrics.waited.Observe(time.Since(began).Seconds()) }()
	b.enqueue(c)
	for {
		select {
		case <-c.done:
			return c.err
		case b.lead <- struct{}{}:
			// The leader before may have written c as well; then those who still wait lead.
			if !c.isDone() {
				b.writeGroup()
			}
			<-b.lead
		case <-ctx.Done():
			if b.withdraw(c) {
				return fmt.Errorf("commit: %w", ctx.Err())
			}
			<-c.done
			return c.err
		}
	}
}

func (b *Backend) enqueue(c *commit) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pending = append(b.pending, c)
	if b.awaited > 0 && len(b.pending) >= b.awaited {
		b.awaited = 0
		b.gathered <- struct{}{}
	}
}

// withdraw takes back a commit that no leader has taken.
func (b *Backend) withdraw(c *commit) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.Index(b.pending, c)
	if i < 0 {
		return false
	}
	b.pending = slices.Delete(b.pending, i, i+1)
	return true
}

// writeGroup takes what waits, writes it in one transaction and tells each caller. It runs under lead.
func (b *Backend) writeGroup() {
	b.gather()
	group := b.take()
	if len(group) == 0 {
		return
	}
	b.last = len(group)
	err := storage.ErrClosed
	if !b.closed {
		began := time.Now()
		err = b.write(group)
		b.metrics.written(began, len(group), err)
	}
	for _, c := range group {
		switch {
		case err != nil:
			c.err = err
		case c.err == nil:
			b.revision = c.revision
			c.applied(c.revision)
		}
	}
	// Only now: who hears of a conflict reads what it conflicted with.
	for _, c := range group {
		close(c.done)
	}
}

// gather waits until as many commits are there as the group before had. Callers that work in a loop come
// back at about the same time, and the first of them should not lead alone. A lone caller waits for nobody.
func (b *Backend) gather() {
	b.mu.Lock()
	if b.last <= 1 || len(b.pending) >= b.last {
		b.mu.Unlock()
		return
	}
	b.awaited = b.last
	b.mu.Unlock()
	timer := time.NewTimer(gatherTime)
	defer timer.Stop()
	select {
	case <-b.gathered:
		return
	case <-timer.C:
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.awaited == 0 {
		<-b.gathered
	}
	b.awaited = 0
}

// take removes the next group from the queue.
func (b *Backend) take() []*commit {
	b.mu.Lock()
	defer b.mu.Unlock()
	n, operations := 0, 0
	for n < len(b.pending) {
		operations += len(b.pending[n].operations)
		// A commit larger than a group is a group of its own.
		if n > 0 && operations > groupOperations {
			break
		}
		n++
	}
	group := slices.Clone(b.pending[:n])
	b.pending = slices.Delete(b.pending, 0, n)
	return group
}

// write makes the group durable, each commit that meets what it expected as a revision of its own.
func (b *Backend) write(group []*commit) error {
	err := b.db.Update(func(tx *bbolt.Tx) error {
		b.size.Store(tx.Size())
		meta := tx.Bucket([]byte(metaBucket))
		revision, err := readRevision(meta, []byte(revisionKey))
		if err != nil {
			return err
		}
		if revision != b.revision {
			// A transaction whose end failed may have reached the disk all the same. Its callers were
			// told that it did not, and the read model lacks it: nothing may be built on that.
			return fmt.Errorf("revision on disk is %d, not %d, after a failed write: restart to load it", revision, b.revision)
		}
		objects := tx.Bucket([]byte(objectsBucket))
		collections := map[string]uint64{}
		for _, c := range group {
			if c.err = check(meta, objects, collections, c.operations); c.err != nil {
				continue
			}
			revision++
			c.revision = revision
			if err := put(objects, c, collections); err != nil {
				return err
			}
		}
		for collection, last := range collections {
			if err := meta.Put([]byte(collectionPrefix+collection), binary.BigEndian.AppendUint64(nil, last)); err != nil {
				return fmt.Errorf("write revision of %s: %w", collection, err)
			}
		}
		return meta.Put([]byte(revisionKey), binary.BigEndian.AppendUint64(nil, revision))
	})
	if err != nil {
		return fmt.Errorf("write storage: %w", err)
	}
	return nil
}

// check compares what is there, earlier commits of the group included, with what the operations expect.
func check(meta, objects *bbolt.Bucket, written map[string]uint64, operations []storage.Operation) error {
	var fault error
	object := func(key string) uint64 {
		value := objects.Get([]byte(key))
		if value == nil {
			return 0
		}
		record, err := storage.DecodeRecord(key, value)
		fault = errors.Join(fault, err)
		return record.Revision
	}
	collection := func(name string) uint64 {
		if revision, ok := written[name]; ok {
			return revision
		}
		key := []byte(collectionPrefix + name)
		if meta.Get(key) == nil {
			return 0
		}
		revision, err := readRevision(meta, key)
		fault = errors.Join(fault, err)
		return revision
	}
	for _, operation := range operations {
		if err := errors.Join(operation.Met(object, collection), fault); err != nil {
			return err
		}
	}
	return nil
}

func put(objects *bbolt.Bucket, c *commit, collections map[string]uint64) error {
	for _, operation := range c.operations {
		if operation.Looks {
			continue
		}
		collections[operation.Collection()] = c.revision
		key := []byte(operation.Key)
		if operation.Value == nil {
			if err := objects.Delete(key); err != nil {
				return fmt.Errorf("delete %s: %w", operation.Key, err)
			}
			continue
		}
		if err := objects.Put(key, storage.Record{Key: operation.Key, Revision: c.revision, Value: operation.Value}.Encode()); err != nil {
			return fmt.Errorf("write %s: %w", operation.Key, err)
		}
	}
	return nil
}
