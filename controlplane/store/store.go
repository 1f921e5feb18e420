// Package store is the policy server's memory: policies, domain sets and nodes, read from immutable snapshots that
// never wait for a writer, and kept by a storage behind it. A change is on disk before a reader or a
// watcher sees it, and all see changes in the order of their revisions.
//
// Everything that the store hands out is immutable.
package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-memdb"

	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/controlplane/policy"
	"github.com/nameward/nameward/controlplane/storage"
)

var (
	// ErrNotFound says that there is no such object.
	ErrNotFound = errors.New("not found")
	// ErrExists says that there is one already.
	ErrExists = errors.New("already exists")
	// ErrStale says that the object is not the one that the etag stands for.
	ErrStale = errors.New("has changed since it was read: the etag is stale")
	// ErrConnected says that a node cannot be forgotten now.
	ErrConnected = errors.New("its agent is connected: it can be deleted when that is stopped")
)

// ResourceError is one of the errors above, and the resource that it is about.
type ResourceError struct {
	// Name is the resource name, as in `policies/web`.
	Name string
	Err  error
}

// Error returns the name and the error.
func (e *ResourceError) Error() string { return e.Name + ": " + e.Err.Error() }

// Unwrap returns the sentinel.
func (e *ResourceError) Unwrap() error { return e.Err }

// Store holds policies, domain sets and nodes. It starts no goroutine and is safe for concurrent use.
type Store struct {
	backend storage.Backend
	journal Journal // set before anything changes
	id      string
	db      *memdb.MemDB

	// references is held while a policy is checked and written, and exclusively while it is made sure that no
	// policy names a domain set and the set is deleted. It is taken before mu.
	references sync.RWMutex

	// mu guards what belongs together: the policies and domain sets in db, the position behind the last
	// change of a policy, and the revisions. Writers of either hold it while they change db; where both are
	// needed, mu is taken before memdb's own writer lock.
	mu             sync.RWMutex
	revision       uint64
	policyRevision uint64
	// rulesRevision is that of the last change of a policy or a domain set; rulesChanged closes at the next.
	rulesRevision uint64
	rulesChanged  chan struct{}
	history       *history
	current       current

	// nodes keeps changes of nodes in order.
	nodes nodeChanges

	// nodesChanged, set before others write, is told of nodes that other servers register, and of those they delete.
	nodesChanged NodesChanged
}

// NodesChanged is told of nodes that other servers register or delete; with nil for a node that is gone.
type NodesChanged func(id node.ID, n *Node)

// Open reads everything that the backend holds. The backend stays the caller's to close, after the last
// use of the store.
func Open(ctx context.Context, backend storage.Backend) (*Store, error) {
	db, err := memdb.NewMemDB(schema())
	if err != nil {
		return nil, fmt.Errorf("make read model: %w", err)
	}
	s := &Store{backend: backend, journal: noJournal{}, db: db, rulesChanged: make(chan struct{}), nodes: nodeChanges{changed: make(chan struct{}), known: map[node.ID]*nodePlace{}}}
	txn := db.Txn(true)
	defer txn.Abort()
	meta, err := load(txn, func(record func(storage.Record) error) (storage.Meta, error) { return backend.Load(ctx, record) })
	if err != nil {
		return nil, err
	}
	txn.Commit()
	s.id = meta.StoreID
	s.revision = meta.Revision
	// A store without a policy has always had the state that its first revision had.
	s.policyRevision = max(meta.Collections[collectionOf(policy.Collection)], firstRevision)
	s.rulesRevision = max(s.policyRevision, meta.Collections[collectionOf(policy.DomainSetCollection)])
	s.history = newHistory(s.policyRevision, historyEvents, historyBytes)
	s.current = newCurrent(s.db.Txn(false))
	return s, nil
}

// load fills a read model that is empty.
func load(txn *memdb.Txn, from func(record func(storage.Record) error) (storage.Meta, error)) (storage.Meta, error) {
	loading := &loader{txn: txn, sets: map[string]*loadedSet{}}
	meta, err := from(loading.load)
	if err == nil {
		err = loading.finish()
	}
	if err != nil {
		return meta, fmt.Errorf("load store: %w", err)
	}
	return meta, nil
}

// Sync returns when everything is visible that any server committed before the call; storage.ErrUnavailable when that
// cannot be known.
func (s *Store) Sync(ctx context.Context) error {
	return s.backend.Sync(ctx) //nolint:wrapcheck // says what it was for
}

// firstRevision is that of a store in which nothing was ever written.
const firstRevision = 1

// change makes a durable change visible to readers. It is called under mu.
func (s *Store) change(revision uint64, change func(*memdb.Txn) error) {
	txn := s.db.Txn(true)
	if err := change(txn); err != nil {
		// The guard of the commit says that the object was there as it should be, and the schema fits.
		panic(fmt.Sprintf("read model refused revision %d: %v", revision, err))
	}
	txn.Commit()
	s.revision, s.rulesRevision = revision, revision
	close(s.rulesChanged)
	s.rulesChanged = make(chan struct{})
}

func collectionOf(key string) string { return storage.CollectionOf(key) }

// ID returns the random id that the store got when it was made. Revisions of stores with different ids
// have nothing to do with each other.
func (s *Store) ID() string { return s.id }

// Revision returns the revision of the last commit, of whatever object. It is never 0.
func (s *Store) Revision() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.revision
}

// now is the time as messages carry it and as it comes back from the disk.
func now() time.Time { return time.Now().UTC().Round(0) }
