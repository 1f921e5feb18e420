// Package etcd keeps the store's objects in an etcd cluster that several policy servers share. All of it lies under one
// prefix:
//
//	data/chunks/…    parts of commits that are too large for one transaction, until they are folded
//	data/parts/…     what of an object goes beyond the size of a value
//	entries/ID       a large commit that is in force, but not folded into the objects yet
//	head             the store's id, the last revision, and which commits were the last
//	objects/KEY      a record under each key
//	servers/ID       the servers that run, each under a lease
//	staging/ID       a large commit that is being prepared, under a lease
//
// Every commit writes head, on the condition that nobody wrote it since the server last read it: so all commits of all
// servers have one order, each was judged by the state right before it, and the revision is one sequence. Each server
// follows all of it by one watch, its own commits too, and readers see a commit when that has come.
package etcd

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nameward/nameward/controlplane/storage"
)

const (
	// commitTimeout bounds a commit, and how long a reader waits to be up to date.
	commitTimeout = 5 * time.Second
	format        = 1
)

// Config says where the cluster is.
type Config struct {
	Endpoints []string
	// Prefix of all keys, with a slash at its end.
	Prefix string
	TLS    *tls.Config // nil for plain text
	// Advertise is the address at which other servers reach this one.
	Advertise string
	Log       *slog.Logger
}

// Backend is a storage.Shared on an etcd cluster.
type Backend struct {
	cfg     Config
	cluster *cluster
	id      string // of this server, random
	metrics metrics
	syncs   syncs
	session session

	// kick has an element when the watch shall begin anew, at another member.
	kick chan struct{}
	// waiting has an element when commits wait, folding when a large one is to be folded.
	waiting, folding chan struct{}

	mu sync.Mutex // guards all below
	state
	pending []*commit
	// own are the commits of this server that were sent and have not come by the watch, by id.
	own    map[string]*commit
	serial uint64
	closed bool
	// freshAt is when the server last knew that it was up to date.
	freshAt time.Time
}

// state is what the server knows of the cluster, as of one of its revisions.
type state struct {
	// mod is etcd's revision up to which all is known, headMod that at which head was written last.
	mod, headMod int64
	head         head
	index        map[string]indexed
	// entries are the large commits that are not folded.
	entries map[string]*entry
	servers map[string]storage.Server
	// changed is closed when any of it is another.
	changed chan struct{}
}

// indexed is what has to be known of an object to judge and write commits.
type indexed struct {
	revision uint64
	parts    int
}

var (
	_ storage.Shared    = (*Backend)(nil)
	_ storage.Directory = (*Backend)(nil)
)

// Open returns the storage in a cluster. The cluster is asked when it is loaded.
func Open(cfg Config) (*Backend, error) {
	cluster, err := newCluster(cfg.Endpoints, cfg.TLS)
	if err != nil {
		return nil, err
	}
	b := &Backend{
		cfg: cfg, cluster: cluster, id: rand.Text(), metrics: newMetrics(),
		kick: make(chan struct{}, 1), waiting: make(chan struct{}, 1), folding: make(chan struct{}, 1),
		own: map[string]*commit{}, state: state{changed: make(chan struct{})},
	}
	b.syncs.read = b.readHeadMod
	return b, nil
}

// Close releases the connections. Commits that wait get ErrClosed.
func (b *Backend) Close() error {
	b.mu.Lock()
	closed, pending := b.closed, b.pending
	b.closed, b.pending = true, nil
	b.mu.Unlock()
	for _, c := range pending {
		c.end(storage.ErrClosed)
	}
	if closed {
		return nil
	}
	return b.cluster.close()
}

// The keys.
func (b *Backend) headKey() string                { return b.cfg.Prefix + "head" }
func (b *Backend) importingKey() string           { return b.cfg.Prefix + "importing" }
func (b *Backend) objectKey(key string) string    { return b.cfg.Prefix + "objects/" + key }
func (b *Backend) entryKey(id string) string      { return b.cfg.Prefix + "entries/" + id }
func (b *Backend) stagingKey(id string) string    { return b.cfg.Prefix + "staging/" + id }
func (b *Backend) serverKey(id string) string     { return b.cfg.Prefix + "servers/" + id }
func (b *Backend) chunksPrefix() string           { return b.cfg.Prefix + "data/chunks/" }
func (b *Backend) chunksOf(id string) string      { return b.chunksPrefix() + id + "/" }
func (b *Backend) partsOf(key string) string      { return b.cfg.Prefix + "data/parts/" + key + "\x00" }
func (b *Backend) partKey(k string, i int) string { return fmt.Sprintf("%s%06d", b.partsOf(k), i) }
func (b *Backend) chunkKey(id string, i int) string {
	return fmt.Sprintf("%s%06d", b.chunksOf(id), i)
}

// watched returns the range that is watched: all but data, which is read when it is needed.
func (b *Backend) watched() (from, to string) {
	return b.cfg.Prefix + "entries/", clientv3.GetPrefixRangeEnd(b.cfg.Prefix)
}

// parse splits a key into its kind (`objects`) and what follows.
func (b *Backend) parse(key []byte) (kind, name string) {
	kind, name, _ = strings.Cut(strings.TrimPrefix(string(key), b.cfg.Prefix), "/")
	return kind, name
}

// await waits until the state is as wanted; it is called under no lock. Where ctx ends before, it returns its error.
func (b *Backend) await(ctx context.Context, wanted func() bool) error {
	for {
		b.mu.Lock()
		ok, changed, closed := wanted(), b.changed, b.closed
		b.mu.Unlock()
		switch {
		case ok:
			return nil
		case closed:
			return storage.ErrClosed
		}
		select {
		case <-ctx.Done():
			return ctx.Err() //nolint:wrapcheck // the caller says what was waited for
		case <-changed:
		}
	}
}

// announce wakes those who wait for the state. It is called under mu.
func (b *Backend) announce() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// notify puts an element into a channel that has room for one.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// ID returns that of this server, another one at each start.
func (b *Backend) ID() string { return b.id }

// Servers returns the others that run, and a channel that closes when anything in the storage has changed.
func (b *Backend) Servers() (others []storage.Server, changed <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, server := range b.servers {
		if id != b.id {
			others = append(others, server)
		}
	}
	return others, b.changed
}

// Stale returns for how long the server has not known that it is up to date.
func (b *Backend) Stale() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.freshAt.IsZero() {
		return 0
	}
	return time.Since(b.freshAt)
}

// unavailable wraps an error of the cluster: nothing was written.
func unavailable(err error) error {
	if errors.Is(err, storage.ErrClosed) {
		return err
	}
	return fmt.Errorf("%w: etcd: %w", storage.ErrUnavailable, err)
}
