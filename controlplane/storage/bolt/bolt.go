// Package bolt keeps the store's objects in one bbolt file. Commits of concurrent callers share a
// transaction and its fsync; nothing is acknowledged before that.
//
// Bucket `meta` holds `format`, `store_id`, `revision` and, under `collection/…`, the revision of the last
// change of each collection. Bucket `objects` holds a record under each key.
package bolt

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"github.com/nameward/nameward/controlplane/storage"
)

const (
	fileName = "store.db"
	fileMode = 0o600
	dirMode  = 0o700
	// lockTimeout covers a predecessor that is about to end.
	lockTimeout = 2 * time.Second
	format      = "1"
)

// A Go constant cannot be a slice: the names of buckets and keys stay strings until they are used.
const (
	metaBucket       = "meta"
	objectsBucket    = "objects"
	formatKey        = "format"
	storeIDKey       = "store_id"
	revisionKey      = "revision"
	collectionPrefix = "collection/"
)

// Backend is a storage.Backend on one file, which no other process can open meanwhile.
type Backend struct {
	db *bbolt.DB
	// lead holds a token while a caller writes a group of commits; its holder owns revision, last and
	// closed. It is taken without mu; mu may be taken under it.
	lead     chan struct{}
	revision uint64
	// last is how many commits the group before had.
	last   int
	closed bool

	metrics metrics
	size    atomic.Int64

	// mu guards the commits that wait, and how many a gathering leader waits for (0: none gathers).
	mu      sync.Mutex
	pending []*commit
	awaited int
	// gathered gets a token when awaited is reached.
	gathered chan struct{}
}

var _ storage.Backend = (*Backend)(nil)

// Open opens or makes the storage in a directory, which it makes if needed. Both are for the owner alone.
func Open(dir string) (*Backend, error) {
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	path := filepath.Join(dir, fileName)
	before, err := os.Stat(path)
	created := errors.Is(err, fs.ErrNotExist)
	db, err := bbolt.Open(path, fileMode, &bbolt.Options{Timeout: lockTimeout, FreelistType: bbolt.FreelistMapType})
	switch {
	case errors.Is(err, bbolterrors.ErrTimeout):
		return nil, fmt.Errorf("open %s: another process has it open", path)
	case err != nil:
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	// A restore may have put another file in its place while the lock was waited for.
	if now, err := os.Stat(path); !created && (err != nil || !os.SameFile(before, now)) {
		return nil, errors.Join(fmt.Errorf("open %s: was replaced meanwhile", path), err, db.Close())
	}
	b := &Backend{db: db, lead: make(chan struct{}, 1), gathered: make(chan struct{}, 1), metrics: newMetrics()}
	if err := b.prepare(); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), db.Close())
	}
	if created {
		// The file's name is data of the directory: without this it may be gone after a power cut.
		if err := syncDir(dir); err != nil {
			return nil, errors.Join(err, db.Close())
		}
	}
	return b, nil
}

// prepare makes what a new file lacks, and reads the revision of one that is not new.
func (b *Backend) prepare() error {
	return b.db.Update(func(tx *bbolt.Tx) error {
		b.size.Store(tx.Size())
		if meta := tx.Bucket([]byte(metaBucket)); meta != nil {
			if got := string(meta.Get([]byte(formatKey))); got != format {
				return fmt.Errorf("format %q is not known to this version, which knows %q", got, format)
			}
			read, err := readMeta(tx)
			b.revision = read.Revision
			return err
		}
		meta, err := tx.CreateBucket([]byte(metaBucket))
		if err != nil {
			return fmt.Errorf("make bucket: %w", err)
		}
		if _, err := tx.CreateBucket([]byte(objectsBucket)); err != nil {
			return fmt.Errorf("make bucket: %w", err)
		}
		b.revision = 1
		return errors.Join(
			meta.Put([]byte(formatKey), []byte(format)),
			meta.Put([]byte(storeIDKey), []byte(rand.Text())),
			meta.Put([]byte(revisionKey), binary.BigEndian.AppendUint64(nil, b.revision)),
		)
	})
}

// Load calls record for every object, in order of the keys.
func (b *Backend) Load(ctx context.Context, record func(storage.Record) error) (storage.Meta, error) {
	var meta storage.Meta
	err := b.db.View(func(tx *bbolt.Tx) error {
		var err error
		if meta, err = readMeta(tx); err != nil {
			return err
		}
		objects := tx.Bucket([]byte(objectsBucket))
		if objects == nil {
			return fmt.Errorf("%w: bucket %q is missing", storage.ErrCorrupt, objectsBucket)
		}
		return objects.ForEach(func(key, value []byte) error {
			if err := ctx.Err(); err != nil {
				return err //nolint:wrapcheck // of the caller's context
			}
			r, err := storage.DecodeRecord(string(key), value)
			if err != nil {
				return err //nolint:wrapcheck // names the key
			}
			if r.Revision > meta.Revision {
				return corrupt(key, fmt.Sprintf("revision %d is above the storage's, %d", r.Revision, meta.Revision))
			}
			return record(r)
		})
	})
	return meta, err
}

func readMeta(tx *bbolt.Tx) (storage.Meta, error) {
	bucket := tx.Bucket([]byte(metaBucket))
	meta := storage.Meta{StoreID: string(bucket.Get([]byte(storeIDKey))), Collections: map[string]uint64{}}
	if meta.StoreID == "" {
		return meta, corrupt([]byte(storeIDKey), "is missing")
	}
	var err error
	if meta.Revision, err = readRevision(bucket, []byte(revisionKey)); err != nil {
		return meta, err
	}
	cursor := bucket.Cursor()
	for key, _ := cursor.Seek([]byte(collectionPrefix)); key != nil; key, _ = cursor.Next() {
		name, ok := strings.CutPrefix(string(key), collectionPrefix)
		if !ok {
			break
		}
		if meta.Collections[name], err = readRevision(bucket, key); err != nil {
			return meta, err
		}
	}
	return meta, nil
}

func readRevision(bucket *bbolt.Bucket, key []byte) (uint64, error) {
	value := bucket.Get(key)
	if len(value) != 8 {
		return 0, corrupt(key, fmt.Sprintf("%d bytes are not 8", len(value)))
	}
	return binary.BigEndian.Uint64(value), nil
}

// Sync returns at once: no other server writes here.
func (b *Backend) Sync(ctx context.Context) error { return ctx.Err() } //nolint:wrapcheck // of the caller's context

func corrupt(key []byte, reason string) error { return storage.Corrupt(string(key), reason) }

// Close waits for the group of commits under way and closes the file. Commits that wait get ErrClosed.
func (b *Backend) Close() error {
	b.lead <- struct{}{}
	defer func() { <-b.lead }()
	if b.closed {
		return nil
	}
	b.closed = true
	if err := b.db.Close(); err != nil {
		return fmt.Errorf("close storage: %w", err)
	}
	return nil
}

func syncDir(path string) error {
	dir, err := os.Open(path) //nolint:gosec // the operator names it
	if err != nil {
		return fmt.Errorf("open data directory: %w", err)
	}
	if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
		return fmt.Errorf("sync data directory: %w", err)
	}
	return nil
}
