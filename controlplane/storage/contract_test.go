package storage_test

import (
	"bytes"
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

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nameward/nameward/controlplane/storage"
	"github.com/nameward/nameward/controlplane/storage/bolt"
	"github.com/nameward/nameward/controlplane/storage/etcd"
	"github.com/nameward/nameward/e2e/cluster"
)

// The tests of this file hold every kind of storage to the same contract.

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

func TestReopen(t *testing.T) {
	forEachKind(t, func(t *testing.T, k kind, where string) {
		o := k.start(t, where)
		if o.meta.Revision != 1 || o.meta.StoreID == "" || len(o.loaded) != 0 {
			t.Errorf("fresh: %+v with %v, want revision 1, an id and nothing", o.meta, o.loaded)
		}
		o.must(o.commit(put("policies/a", "1")))
		o.must(o.commit(put("policies/b", "2"), put("policies/b/0001", "")))
		o.must(o.commit(put("nodes/n", "3")))
		o.must(o.commit(storage.Operation{Key: "policies/a"}))
		o.close()
		again := k.start(t, where)
		if diff := cmp.Diff(map[string]string{"policies/b": "2@3", "policies/b/0001": "@3", "nodes/n": "3@4"}, again.loaded); diff != "" {
			t.Errorf("objects (-want +got):\n%s", diff)
		}
		want := storage.Meta{StoreID: o.meta.StoreID, Revision: 5, Collections: map[string]uint64{"policies": 5, "nodes": 4}}
		if diff := cmp.Diff(want, again.meta); diff != "" {
			t.Errorf("meta (-want +got):\n%s", diff)
		}
	})
}

func TestExpectations(t *testing.T) {
	forEachKind(t, func(t *testing.T, k kind, where string) {
		o := k.start(t, where)
		first := o.must(o.commit(storage.Operation{Key: "policies/a", Value: []byte("1"), Expected: storage.ExpectAbsent()}))
		o.must(o.commit(put("domainSets/s", "1")))
		for name, operations := range map[string][]storage.Operation{
			"absent but there":     {{Key: "policies/a", Value: []byte("2"), Expected: storage.ExpectAbsent()}},
			"another revision":     {{Key: "policies/a", Value: []byte("2"), Expected: storage.ExpectRevision(first + 1)}},
			"of one that is gone":  {{Key: "policies/gone", Value: []byte("2"), Expected: storage.ExpectRevision(first)}},
			"required and missing": {put("policies/b", "1"), storage.Require("domainSets/gone")},
			"collection changed":   {put("policies/b", "1"), storage.Unchanged("policies", first-1)},
			"the second of two":    {put("policies/b", "1"), {Key: "policies/c", Value: []byte("1"), Expected: storage.ExpectRevision(9)}},
		} {
			if _, err := o.commit(operations...); !errors.Is(err, storage.ErrConflict) {
				t.Errorf("%s: Commit = %v, want ErrConflict", name, err)
			}
		}
		second := o.must(o.commit(
			storage.Operation{Key: "policies/a", Value: []byte("3"), Expected: storage.ExpectRevision(first)},
			storage.Require("domainSets/s"), storage.Unchanged("domainSets", first+1), storage.Unchanged("nodes", 0),
		))
		if second != first+2 {
			t.Errorf("revision %d, want %d: a conflict uses none up", second, first+2)
		}
		objects, meta := o.load()
		if diff := cmp.Diff(map[string]string{"policies/a": fmt.Sprintf("3@%d", second), "domainSets/s": fmt.Sprintf("1@%d", first+1)}, objects); diff != "" {
			t.Errorf("objects (-want +got):\n%s", diff)
		}
		if meta.Collections["domainSets"] != first+1 {
			t.Errorf("what is only looked at has changed: %+v", meta)
		}
	})
}

// A commit of any size is one: more operations and bytes than a transaction of etcd takes.
func TestLargeCommits(t *testing.T) {
	forEachKind(t, func(t *testing.T, k kind, where string) {
		o := k.start(t, where)
		var operations []storage.Operation
		for i := range 700 {
			operations = append(operations, storage.Operation{Key: fmt.Sprintf("domainSets/s/%04x", i), Value: bytes.Repeat([]byte{'a' + byte(i%26)}, 8000)})
		}
		huge := strings.Repeat("x", 3<<20)
		operations = append(operations, put("domainSets/s", huge))
		first := o.must(o.commit(operations...))
		// At once, whether the first is folded or not.
		second := o.must(o.commit(put("domainSets/s/0001", "small"), storage.Operation{Key: "domainSets/s/0002"}, storage.Operation{Key: "domainSets/s", Value: []byte("y"), Expected: storage.ExpectRevision(first)}))
		if second != first+1 {
			t.Errorf("revisions %d and %d", first, second)
		}
		objects, _ := o.load()
		if diff := cmp.Diff(o.changes.objects, objects); diff != "" {
			t.Errorf("objects (-want +got):\n%s", diff)
		}
		if len(objects) != 700 || objects["domainSets/s/0001"] != fmt.Sprintf("small@%d", second) || objects["domainSets/s"] != fmt.Sprintf("y@%d", second) {
			t.Errorf("%d objects, %s, %s", len(objects), objects["domainSets/s/0001"], objects["domainSets/s"])
		}
		o.must(o.commit(put("domainSets/s", huge)))
		var gone []storage.Operation
		for key := range objects {
			gone = append(gone, storage.Operation{Key: key})
		}
		o.must(o.commit(gone...))
		o.close()
		if again := k.start(t, where); len(again.loaded) != 0 {
			t.Errorf("%d objects are left", len(again.loaded))
		}
	})
}

// Writers race for the same object under guards; each that is told of success must have been the only one
// at its revision, and applied must have been called in order.
func TestConcurrentCommitsAreGuardedAndInOrder(t *testing.T) {
	forEachKind(t, func(t *testing.T, k kind, where string) {
		o := k.start(t, where)
		var mu sync.Mutex
		var applied []uint64
		var current uint64
		var group sync.WaitGroup
		const writers, rounds = 8, 10
		for range writers {
			group.Go(func() {
				for done := 0; done < rounds; {
					mu.Lock()
					expected := storage.ExpectRevision(current)
					mu.Unlock()
					err := o.Commit(t.Context(), []storage.Operation{{Key: "k/a", Value: []byte("x"), Expected: expected}}, func(revision uint64) {
						mu.Lock()
						defer mu.Unlock()
						applied = append(applied, revision)
						current = revision
					})
					switch {
					case err == nil:
						done++
					case !errors.Is(err, storage.ErrConflict):
						t.Errorf("Commit: %v", err)
						return
					}
				}
			})
		}
		group.Wait()
		if len(applied) != writers*rounds {
			t.Errorf("%d commits were applied, want %d", len(applied), writers*rounds)
		}
		for i, revision := range applied {
			if revision != uint64(i)+2 {
				t.Fatalf("commit %d has revision %d, want %d", i, revision, i+2)
			}
		}
	})
}

// A commit whose context ends is either withdrawn, and then not there, or done, or its outcome is said not to be known.
func TestCancelledCommitsAreDoneOrNot(t *testing.T) {
	forEachKind(t, func(t *testing.T, k kind, where string) {
		o := k.start(t, where)
		var group sync.WaitGroup
		var mu sync.Mutex
		acknowledged := map[string]bool{}
		for i := range 64 {
			key := fmt.Sprintf("k/%02d", i)
			ctx, cancel := context.WithCancel(t.Context())
			group.Go(func() {
				err := o.Commit(ctx, []storage.Operation{{Key: key, Value: []byte("1")}}, func(uint64) {})
				switch {
				case errors.Is(err, storage.ErrUnknownOutcome):
					return
				case err != nil && !errors.Is(err, context.Canceled):
					t.Errorf("Commit: %v", err)
				}
				mu.Lock()
				defer mu.Unlock()
				acknowledged[key] = err == nil
			})
			group.Go(cancel)
		}
		group.Wait()
		if err := o.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		objects, _ := o.load()
		for key, want := range acknowledged {
			if _, got := objects[key]; got != want {
				t.Errorf("%s: there %t, acknowledged %t", key, got, want)
			}
		}
	})
}

func TestCommitAfterCloseIsRefused(t *testing.T) {
	forEachKind(t, func(t *testing.T, k kind, where string) {
		o := k.start(t, where)
		o.close()
		if _, err := o.commit(put("k/a", "1")); !errors.Is(err, storage.ErrClosed) {
			t.Errorf("Commit = %v, want ErrClosed", err)
		}
	})
}

// Several servers write to one cluster: each sees what all do, in one order, and guards hold between them.
func TestServersShareOneOrder(t *testing.T) {
	requireEtcd(t)
	k := kinds()[1]
	where := k.make(t)
	servers := []*opened{k.start(t, where), k.start(t, where), k.start(t, where)}
	var group sync.WaitGroup
	for i, s := range servers {
		group.Go(func() {
			for round := range 20 {
				if _, err := s.commit(put(fmt.Sprintf("k/%d", (i+round)%7), fmt.Sprintf("%d-%d", i, round))); err != nil {
					t.Errorf("Commit: %v", err)
				}
			}
			// All that one object: a counter that loses nothing.
			for done := 0; done < 10; {
				if err := s.Sync(t.Context()); err != nil {
					t.Errorf("Sync: %v", err)
					return
				}
				s.changes.mu.Lock()
				var value, revision uint64
				_, _ = fmt.Sscanf(s.changes.objects["k/counter"], "%d@%d", &value, &revision)
				s.changes.mu.Unlock()
				_, err := s.commit(storage.Operation{Key: "k/counter", Value: fmt.Appendf(nil, "%d", value+1), Expected: storage.ExpectRevision(revision)})
				if err == nil {
					done++
				} else if !errors.Is(err, storage.ErrConflict) {
					t.Errorf("Commit: %v", err)
					return
				}
			}
		})
	}
	group.Wait()
	for _, s := range servers {
		if err := s.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	objects, meta := servers[0].load()
	if meta.Revision != 91 || !strings.HasPrefix(objects["k/counter"], "30@") {
		t.Errorf("revision %d, counter %s; want 91 and 30", meta.Revision, objects["k/counter"])
	}
	for i, s := range servers {
		if diff := cmp.Diff(objects, s.changes.objects); diff != "" {
			t.Errorf("server %d (-stored +known):\n%s", i, diff)
		}
		for at, revision := range s.changes.revisions {
			if revision != uint64(at)+2 {
				t.Fatalf("server %d: change %d is revision %d, want %d", i, at, revision, at+2)
			}
		}
	}
}

// A large commit of one server is whole at another, and at one that loads before it is folded.
func TestLargeCommitsReachOtherServers(t *testing.T) {
	requireEtcd(t)
	k := kinds()[1]
	where := k.make(t)
	writer, reader := k.start(t, where), k.start(t, where)
	for round := range 3 {
		var operations []storage.Operation
		for i := range 300 {
			operations = append(operations, put(fmt.Sprintf("domainSets/s/%04x", i), fmt.Sprintf("%d-%d", round, i)))
		}
		writer.must(writer.commit(operations...))
		fresh := k.start(t, where)
		if diff := cmp.Diff(writer.changes.objects, fresh.loaded); diff != "" {
			t.Errorf("loaded (-written +loaded):\n%s", diff)
		}
		fresh.close()
		if err := reader.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		reader.must(reader.commit(put("domainSets/s/0003", "between")))
		if err := writer.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(writer.changes.objects, reader.changes.objects); diff != "" {
			t.Errorf("other server (-written +known):\n%s", diff)
		}
	}
}

// A server that missed changes which etcd has compacted loads everything anew, and goes on.
func TestCompactedChangesAreLoaded(t *testing.T) {
	requireEtcd(t)
	k := kinds()[1]
	where := k.make(t)
	late := k.open(t, where)
	if _, err := late.Load(t.Context(), func(storage.Record) error { return nil }); err != nil {
		t.Fatal(err)
	}
	writer := k.start(t, where)
	var mod int64
	client, err := clientv3.New(clientv3.Config{Endpoints: members})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close() //nolint:errcheck // of a test
	for i := range 10 {
		writer.must(writer.commit(put(fmt.Sprintf("k/%d", i), "1")))
	}
	response, err := client.Get(t.Context(), where+"head")
	if err != nil {
		t.Fatal(err)
	}
	mod = response.Kvs[0].ModRevision
	if _, err := client.Compact(t.Context(), mod); err != nil {
		t.Fatal(err)
	}
	o := &opened{Backend: late, t: t, changes: &changes{objects: map[string]string{}}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- late.(storage.Shared).Follow(ctx, o.changes) }()
	if err := o.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	o.must(o.commit(put("k/after", "1")))
	if o.changes.reloads != 1 || len(o.changes.objects) != 11 {
		t.Errorf("loaded anew %d times, knows %v", o.changes.reloads, o.changes.objects)
	}
	cancel()
	if err := errors.Join(<-done, late.Close()); err != nil {
		t.Error(err)
	}
}

// What a commit of another server left in chunks, and was never in force, is no part of anything.
func TestUnfinishedCommitsAreNothing(t *testing.T) {
	requireEtcd(t)
	k := kinds()[1]
	where := k.make(t)
	o := k.start(t, where)
	client, err := clientv3.New(clientv3.Config{Endpoints: members})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close() //nolint:errcheck // of a test
	if _, err := client.Put(t.Context(), where+"data/chunks/lost/000000", "rubbish"); err != nil {
		t.Fatal(err)
	}
	o.must(o.commit(put("k/a", "1")))
	if objects, _ := o.load(); len(objects) != 1 {
		t.Errorf("loaded %v", objects)
	}
}
