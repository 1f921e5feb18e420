package storage_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nameward/nameward/controlplane/storage"
	"github.com/nameward/nameward/controlplane/storage/bolt"
	"github.com/nameward/nameward/controlplane/storage/etcd"
	"github.com/nameward/nameward/e2e/cluster"
)

var members []string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if _, err := exec.LookPath("etcd"); err != nil {
		return m.Run() // each test says so
	}
	dir, err := os.MkdirTemp("", "nameward-etcd-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // the last thing done
	places, err := cluster.Here(1)
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := cluster.StartEtcd(ctx, dir, places)
	if err != nil {
		panic(err)
	}
	defer c.Kill() //nolint:errcheck // the last thing done
	if err := c.Await(ctx); err != nil {
		panic(err)
	}
	members = c.Endpoints()
	return m.Run()
}

// requireEtcd skips a test where there is no etcd, and fails it where there must be.
func requireEtcd(t testing.TB) {
	t.Helper()
	switch {
	case members != nil:
	case os.Getenv("REQUIRE_PRIVILEGED") == "1":
		t.Fatal("this test needs etcd")
	default:
		t.Skip("this test needs etcd")
	}
}

// kind makes storages of a kind. open opens one that was made by where, again after Close.
type kind struct {
	name string
	make func(t testing.TB) (where string)
	open func(t testing.TB, where string) storage.Backend
}

func kinds() []kind {
	return []kind{
		{"bolt", func(t testing.TB) string { return t.TempDir() }, func(t testing.TB, where string) storage.Backend {
			b, err := bolt.Open(where)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}},
		{"etcd", func(t testing.TB) string {
			requireEtcd(t)
			return "/" + strings.NewReplacer("/", "-").Replace(t.Name()) + "/"
		}, func(t testing.TB, where string) storage.Backend {
			b, err := etcd.Open(etcd.Config{Endpoints: members, Prefix: where, Advertise: "127.0.0.1:1", Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			return b
		}},
	}
}

func forEachKind(t *testing.T, test func(t *testing.T, k kind, where string)) {
	t.Helper()
	for _, k := range kinds() {
		t.Run(k.name, func(t *testing.T) { test(t, k, k.make(t)) })
	}
}

// opened is a storage that is loaded and, where others write too, followed.
type opened struct {
	storage.Backend
	t       testing.TB
	loaded  map[string]string
	meta    storage.Meta
	changes *changes
	close   func()
}

func (k kind) start(t testing.TB, where string) *opened {
	t.Helper()
	o := &opened{Backend: k.open(t, where), t: t, changes: &changes{objects: map[string]string{}}}
	o.loaded, o.meta = o.load()
	for key, value := range o.loaded {
		o.changes.objects[key] = value
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	if shared, ok := o.Backend.(storage.Shared); ok {
		go func() { done <- shared.Follow(ctx, o.changes) }()
	} else {
		close(done)
	}
	o.close = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-done, o.Close()); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	t.Cleanup(o.close)
	return o
}

func (o *opened) load() (map[string]string, storage.Meta) {
	o.t.Helper()
	objects := map[string]string{}
	last := ""
	meta, err := o.Load(o.t.Context(), func(r storage.Record) error {
		if r.Key <= last {
			o.t.Errorf("%s comes behind %s", r.Key, last)
		}
		last = r.Key
		objects[r.Key] = text(r)
		return nil
	})
	if err != nil {
		o.t.Fatalf("Load: %v", err)
	}
	return objects, meta
}

func text(r storage.Record) string {
	value := string(r.Value)
	if len(value) > 20 {
		value = fmt.Sprintf("%s…%d", value[:20], len(value))
	}
	return fmt.Sprintf("%s@%d", value, r.Revision)
}

// changes are the objects as a server knows them by what it did and was told.
type changes struct {
	mu      sync.Mutex
	objects map[string]string
	// revisions are those that came, in order.
	revisions []uint64
	reloads   int
}

func (c *changes) Apply(change storage.Change) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.revisions = append(c.revisions, change.Revision)
	for _, r := range change.Records {
		if r.Value == nil {
			delete(c.objects, r.Key)
		} else {
			c.objects[r.Key] = text(r)
		}
	}
	return nil
}

func (c *changes) Reload(load func(func(storage.Record) error) (storage.Meta, error)) error {
	objects := map[string]string{}
	_, err := load(func(r storage.Record) error {
		objects[r.Key] = text(r)
		return nil
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.objects = objects
	c.reloads++
	return err
}

// commit commits operations and keeps what they did.
func (o *opened) commit(operations ...storage.Operation) (uint64, error) {
	var revision uint64
	err := o.Commit(o.t.Context(), operations, func(r uint64) {
		revision = r
		change := storage.Change{Revision: r}
		for _, operation := range operations {
			if !operation.Looks {
				change.Records = append(change.Records, storage.Record{Key: operation.Key, Revision: r, Value: operation.Value})
			}
		}
		_ = o.changes.Apply(change)
	})
	return revision, err
}

func put(key, value string) storage.Operation {
	return storage.Operation{Key: key, Value: []byte(value)}
}

func (o *opened) must(revision uint64, err error) uint64 {
	o.t.Helper()
	if err != nil {
		o.t.Fatalf("Commit: %v", err)
	}
	return revision
}
