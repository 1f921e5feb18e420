package etcd

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nameward/nameward/controlplane/storage"
)

// A commit that is too large for a transaction is written beforehand, in chunks of which nobody takes note. What puts
// it in force is one small transaction, which writes head and an entry that names the chunks. Behind that it is
// folded: its objects are written to their places, and entry and chunks go. A server that loads while there are
// entries lays them over the objects. Until an entry is folded, commits of the same objects are entries too: so
// nothing that is folded can be newer than what it is written over, and any server may fold any entry, twice or at
// once, on the condition that the entry is there.

const (
	chunkBytes = 1 << 20
	// foldAfter is when a server folds what another one has committed and not folded.
	foldAfter = 10 * time.Second
	// sweepEvery is how often it is looked for chunks that belong to nothing.
	sweepEvery = 10 * time.Minute
)

// entry is a large commit that is in force.
type entry struct {
	ID       string `json:"-"`
	Revision uint64 `json:"revision"`
	Chunks   int    `json:"chunks"`
	// Digest is the SHA-256 of all chunks together.
	Digest string `json:"digest"`

	operations []storage.Operation
	keys       map[string]bool
	// due is when to fold it.
	due time.Time
}

// stagingTime is what a commit of that size gets beside what every commit gets.
func stagingTime(size int) time.Duration {
	return time.Duration(size/groupBytes) * 500 * time.Millisecond
}

// stage writes the chunks of a commit that needs it, once.
func (b *Backend) stage(ctx context.Context, group []*commit) error {
	c := group[0]
	b.mu.Lock()
	needed := c.entry == "" && b.isLarge(c)
	b.mu.Unlock()
	if c.entry != "" {
		// The marker may have gone with a lease that ended: it is written again, and the chunks with it.
		present, err := b.staged(ctx, c.entry)
		if err != nil || present {
			return err
		}
		needed = true
	}
	if !needed || len(group) > 1 {
		return nil
	}
	lease, err := b.session.lease(ctx, b)
	if err != nil {
		return err
	}
	put := func(key, value string, options ...clientv3.OpOption) error {
		return b.cluster.do(ctx, func(ctx context.Context, client *clientv3.Client) error {
			_, err := client.Put(ctx, key, value, options...)
			return err //nolint:wrapcheck // fail does
		})
	}
	if err := put(b.stagingKey(c.id), "", clientv3.WithLease(lease)); err != nil {
		return err
	}
	for i, chunk := range chunksOf(c.operations) {
		if err := put(b.chunkKey(c.id, i), string(chunk)); err != nil {
			return err
		}
	}
	c.entry = c.id
	return nil
}

func (b *Backend) staged(ctx context.Context, id string) (present bool, err error) {
	err = b.cluster.do(ctx, func(ctx context.Context, client *clientv3.Client) error {
		response, err := client.Get(ctx, b.stagingKey(id), clientv3.WithCountOnly())
		if err == nil {
			present = response.Count > 0
		}
		return err //nolint:wrapcheck // fail does
	})
	return present, err
}

// chunksOf encodes operations, cut to the size of values.
func chunksOf(operations []storage.Operation) [][]byte {
	var all []byte
	for _, operation := range operations {
		if operation.Looks {
			continue
		}
		all = binary.AppendUvarint(all, uint64(len(operation.Key)))
		all = append(all, operation.Key...)
		// 0 is a deletion.
		if operation.Value == nil {
			all = binary.AppendUvarint(all, 0)
			continue
		}
		all = binary.AppendUvarint(all, uint64(len(operation.Value))+1)
		all = append(all, operation.Value...)
	}
	return slices.Collect(slices.Chunk(all, chunkBytes))
}

// entryHeader returns the value of a commit's entry.
func entryHeader(c *commit) string {
	chunks := chunksOf(c.operations)
	sum := sha256.Sum256(bytes.Join(chunks, nil))
	text, err := json.Marshal(entry{Revision: c.revision, Chunks: len(chunks), Digest: hex.EncodeToString(sum[:])})
	if err != nil {
		panic(err) // of texts and numbers
	}
	return string(text)
}

// readEntry reads an entry's chunks, as of one of etcd's revisions.
func (b *Backend) readEntry(ctx context.Context, id string, header []byte, mod int64) (*entry, error) {
	e := &entry{ID: id}
	if err := json.Unmarshal(header, e); err != nil {
		return nil, fmt.Errorf("%w: entry %s: %w", storage.ErrCorrupt, id, err)
	}
	var all []byte
	for i := range e.Chunks {
		key := b.chunkKey(id, i)
		err := b.cluster.do(ctx, func(ctx context.Context, client *clientv3.Client) error {
			response, err := client.Get(ctx, key, clientv3.WithRev(mod))
			if err != nil {
				return err //nolint:wrapcheck // below
			}
			if len(response.Kvs) == 0 {
				return storage.Corrupt(key, "is missing")
			}
			all = append(all, response.Kvs[0].Value...)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("read entry %s: %w", id, err)
		}
	}
	if sum := sha256.Sum256(all); hex.EncodeToString(sum[:]) != e.Digest {
		return nil, storage.Corrupt("entries/"+id, "the digest does not fit")
	}
	var err error
	if e.operations, err = decodeOperations(all); err != nil {
		return nil, fmt.Errorf("%w: entry %s: %w", storage.ErrCorrupt, id, err)
	}
	e.prepare(time.Now().Add(foldAfter))
	return e, nil
}

func (e *entry) prepare(due time.Time) {
	e.due, e.keys = due, map[string]bool{}
	for _, operation := range e.operations {
		if !operation.Looks {
			e.keys[operation.Key] = true
		}
	}
}

func decodeOperations(all []byte) (operations []storage.Operation, err error) {
	next := func() uint64 {
		n, size := binary.Uvarint(all)
		if size <= 0 {
			err = errors.New("is cut short")
			return 0
		}
		all = all[size:]
		return n
	}
	take := func(n uint64) []byte {
		if n > uint64(len(all)) {
			err = errors.New("is cut short")
			return nil
		}
		part := all[:n:n]
		all = all[n:]
		return part
	}
	for len(all) > 0 && err == nil {
		operation := storage.Operation{Key: string(take(next()))}
		if n := next(); n > 0 {
			operation.Value = append([]byte{}, take(n-1)...)
		}
		operations = append(operations, operation)
	}
	return operations, err
}

// parts returns the values that keep a record: that of the object's key, and of further ones. The first begins with
// how many there are.
func parts(record storage.Record) [][]byte {
	cut := slices.Collect(slices.Chunk(record.Encode(), chunkBytes))
	values := [][]byte{append(binary.AppendUvarint(nil, uint64(len(cut))), cut[0]...)}
	return append(values, cut[1:]...)
}

// partCount returns how many values keep the record of an object.
func partCount(value []byte) int { return (storage.RecordSize(value) + chunkBytes - 1) / chunkBytes }

// fold folds entries until ctx ends, and now and then removes chunks that belong to nothing.
func (b *Backend) fold(ctx context.Context) error {
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	tick := time.NewTicker(foldAfter / 2)
	defer tick.Stop()
	for {
		for e := b.dueEntry(); e != nil && ctx.Err() == nil; e = b.dueEntry() {
			if err := b.foldEntry(ctx, e); err != nil {
				b.cfg.Log.Warn("large commit not folded", "revision", e.Revision, "err", err)
				break
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-b.folding:
		case <-tick.C:
		case <-sweep.C:
			if err := b.sweep(ctx); err != nil {
				b.cfg.Log.Warn("chunks not swept", "err", err)
			}
		}
	}
}

// dueEntry returns the oldest entry, if it is time: they are folded in order.
func (b *Backend) dueEntry() *entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	var oldest *entry
	for _, e := range b.entries {
		if oldest == nil || e.Revision < oldest.Revision {
			oldest = e
		}
	}
	if oldest == nil || time.Now().Before(oldest.due) {
		return nil
	}
	return oldest
}

func (b *Backend) foldEntry(ctx context.Context, e *entry) error {
	var batch []clientv3.Op
	size := 0
	there := true
	flush := func() error {
		ctx, cancel := within(ctx)
		defer cancel()
		return b.cluster.do(ctx, func(ctx context.Context, client *clientv3.Client) error {
			response, err := client.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(b.entryKey(e.ID)), ">", 0)).Then(batch...).Commit()
			if err == nil {
				there = response.Succeeded
				batch, size = nil, 0
			}
			return err //nolint:wrapcheck // the log says what it was
		})
	}
	for _, operation := range e.operations {
		if operation.Looks {
			continue
		}
		for _, op := range b.foldOperation(e, operation) {
			if len(batch) == groupOperations || len(batch) > 0 && size+len(op.ValueBytes()) > groupBytes {
				if err := flush(); err != nil || !there {
					return err
				}
			}
			batch, size = append(batch, op), size+len(op.ValueBytes())+len(op.KeyBytes())+headerRoom
		}
	}
	if len(batch) > 0 {
		if err := flush(); err != nil || !there {
			return err
		}
	}
	batch = []clientv3.Op{clientv3.OpDelete(b.entryKey(e.ID)), clientv3.OpDelete(b.chunksOf(e.ID), clientv3.WithPrefix())}
	if err := flush(); err != nil {
		return err
	}
	// Before the watch brings that it is gone, it is not to be folded once more.
	ctx, cancel := within(ctx)
	defer cancel()
	return b.await(ctx, func() bool { return b.entries[e.ID] == nil })
}

func (b *Backend) foldOperation(e *entry, operation storage.Operation) []clientv3.Op {
	stale := clientv3.OpDelete(b.partsOf(operation.Key), clientv3.WithPrefix())
	if operation.Value == nil {
		return []clientv3.Op{clientv3.OpDelete(b.objectKey(operation.Key)), stale}
	}
	values := parts(storage.Record{Key: operation.Key, Revision: e.Revision, Value: operation.Value})
	ops := []clientv3.Op{clientv3.OpPut(b.objectKey(operation.Key), string(values[0]))}
	if from := len(values); from == 1 {
		ops = append(ops, stale)
	} else {
		ops = append(ops, clientv3.OpDelete(b.partKey(operation.Key, from), clientv3.WithRange(clientv3.GetPrefixRangeEnd(b.partsOf(operation.Key)))))
	}
	for i, value := range values[1:] {
		ops = append(ops, clientv3.OpPut(b.partKey(operation.Key, i+1), string(value)))
	}
	return ops
}

// sweep removes chunks of commits that were never in force, and of which no server works on any more.
func (b *Backend) sweep(ctx context.Context) error {
	ctx, cancel := within(ctx)
	defer cancel()
	var ids []string
	err := b.cluster.do(ctx, func(ctx context.Context, client *clientv3.Client) error {
		response, err := client.Get(ctx, b.chunksPrefix(), clientv3.WithPrefix(), clientv3.WithKeysOnly())
		if err != nil {
			return err //nolint:wrapcheck // the log says what it was
		}
		ids = nil
		for _, kv := range response.Kvs {
			id, _, _ := strings.Cut(strings.TrimPrefix(string(kv.Key), b.chunksPrefix()), "/")
			ids = append(ids, id)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, id := range slices.Compact(ids) {
		err := b.cluster.do(ctx, func(ctx context.Context, client *clientv3.Client) error {
			_, err := client.Txn(ctx).If(
				clientv3.Compare(clientv3.CreateRevision(b.stagingKey(id)), "=", 0),
				clientv3.Compare(clientv3.CreateRevision(b.entryKey(id)), "=", 0),
			).Then(clientv3.OpDelete(b.chunksOf(id), clientv3.WithPrefix())).Commit()
			return err //nolint:wrapcheck // the log says what it was
		})
		if err != nil {
			return err
		}
	}
	return nil
}
