package bolt_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"

	"github.com/nameward/nameward/controlplane/storage"
	"github.com/nameward/nameward/controlplane/storage/bolt"
)

func open(t testing.TB, dir string) *bolt.Backend {
	t.Helper()
	b, err := bolt.Open(dir)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return b
}

// commit writes one object and returns the revision.
func commit(t testing.TB, b *bolt.Backend, key, value string, expected storage.Expectation) (uint64, error) {
	t.Helper()
	var revision uint64
	operation := storage.Operation{Key: key, Expected: expected}
	if value != "" {
		operation.Value = []byte(value)
	}
	err := b.Commit(t.Context(), []storage.Operation{operation}, func(r uint64) { revision = r })
	return revision, err
}

func load(t testing.TB, b *bolt.Backend) (map[string]string, storage.Meta) {
	t.Helper()
	objects := map[string]string{}
	meta, err := b.Load(t.Context(), func(r storage.Record) error {
		objects[r.Key] = fmt.Sprintf("%s@%d", r.Value, r.Revision)
		return nil
	})
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	return objects, meta
}

func TestReopen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	b := open(t, dir)
	_, fresh := load(t, b)
	if fresh.Revision != 1 || fresh.StoreID == "" {
		t.Errorf("fresh meta = %+v, want revision 1 and an id", fresh)
	}
	for _, step := range []struct{ key, value string }{{"policies/a", "1"}, {"policies/b", "2"}, {"nodes/n", "3"}, {"policies/a", ""}} {
		if _, err := commit(t, b, step.key, step.value, storage.Expectation{}); err != nil {
			t.Fatalf("Commit(%v): %v", step, err)
		}
	}
	if err := b.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	objects, meta := load(t, open(t, dir))
	if diff := cmp.Diff(map[string]string{"policies/b": "2@3", "nodes/n": "3@4"}, objects); diff != "" {
		t.Errorf("objects (-want +got):\n%s", diff)
	}
	want := storage.Meta{StoreID: fresh.StoreID, Revision: 5, Collections: map[string]uint64{"policies": 5, "nodes": 4}}
	if diff := cmp.Diff(want, meta); diff != "" {
		t.Errorf("meta (-want +got):\n%s", diff)
	}
}

func TestStoresHaveDifferentIDs(t *testing.T) {
	_, a := load(t, open(t, t.TempDir()))
	_, b := load(t, open(t, t.TempDir()))
	if a.StoreID == b.StoreID {
		t.Errorf("both stores are %q", a.StoreID)
	}
}

func TestExpectation(t *testing.T) {
	b := open(t, t.TempDir())
	first, err := commit(t, b, "k/a", "1", storage.ExpectAbsent())
	if err != nil {
		t.Fatalf("Commit of an absent object: %v", err)
	}
	for name, expected := range map[string]storage.Expectation{
		"absent but there": storage.ExpectAbsent(),
		"another revision": storage.ExpectRevision(first + 1),
	} {
		if _, err := commit(t, b, "k/a", "2", expected); !errors.Is(err, storage.ErrConflict) {
			t.Errorf("%s: Commit = %v, want ErrConflict", name, err)
		}
	}
	if _, err := commit(t, b, "k/gone", "2", storage.ExpectRevision(first)); !errors.Is(err, storage.ErrConflict) {
		t.Errorf("Commit to an absent object = %v, want ErrConflict", err)
	}
	second, err := commit(t, b, "k/a", "3", storage.ExpectRevision(first))
	if err != nil || second != first+1 {
		t.Errorf("Commit = %d, %v, want revision %d: a conflict uses none up", second, err, first+1)
	}
}

func TestCommitIsAllOrNothing(t *testing.T) {
	b := open(t, t.TempDir())
	err := b.Commit(t.Context(), []storage.Operation{
		{Key: "k/a", Value: []byte("1")},
		{Key: "k/b", Value: []byte("1"), Expected: storage.ExpectRevision(9)},
	}, func(uint64) { t.Error("applied was called") })
	if !errors.Is(err, storage.ErrConflict) {
		t.Errorf("Commit = %v, want ErrConflict", err)
	}
	if objects, meta := load(t, b); len(objects) != 0 || meta.Revision != 1 {
		t.Errorf("storage holds %v at revision %d, want nothing at 1", objects, meta.Revision)
	}
}

func TestModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	open(t, dir)
	for path, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, "store.db"): 0o600} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("mode of %s = %o, want %o", filepath.Base(path), got, want)
		}
	}
}

func TestSecondOpenIsRefused(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	_, err := bolt.Open(dir)
	if err == nil || !strings.Contains(err.Error(), "another process has it open") {
		t.Errorf("second Open = %v, want that another process has the file open", err)
	}
}

func TestCommitOfAnEndedContextIsRefused(t *testing.T) {
	b := open(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := b.Commit(ctx, []storage.Operation{{Key: "k/a", Value: []byte("1")}}, func(uint64) { t.Error("applied was called") })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Commit = %v, want context.Canceled", err)
	}
}

func TestCorruptRecordIsNamed(t *testing.T) {
	for name, damage := range map[string]func(record []byte) []byte{
		"flipped bit of the value":    func(r []byte) []byte { r[len(r)-1] ^= 1; return r },
		"flipped bit of the revision": func(r []byte) []byte { r[5] ^= 1; return r },
		"cut":                         func(r []byte) []byte { return r[:3] },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			b := open(t, dir)
			if _, err := commit(t, b, "policies/web", "value", storage.Expectation{}); err != nil {
				t.Fatal(err)
			}
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			edit(t, dir, func(tx *bbolt.Tx) error {
				objects := tx.Bucket([]byte("objects"))
				key := []byte("policies/web")
				return objects.Put(key, damage(append([]byte(nil), objects.Get(key)...)))
			})
			_, err := open(t, dir).Load(t.Context(), func(storage.Record) error { return nil })
			if !errors.Is(err, storage.ErrCorrupt) || !strings.Contains(err.Error(), `"policies/web"`) {
				t.Errorf("Load = %v, want ErrCorrupt that names policies/web", err)
			}
		})
	}
}

func TestUnknownFormatIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := open(t, dir).Close(); err != nil {
		t.Fatal(err)
	}
	edit(t, dir, func(tx *bbolt.Tx) error { return tx.Bucket([]byte("meta")).Put([]byte("format"), []byte("99")) })
	if _, err := bolt.Open(dir); err == nil || !strings.Contains(err.Error(), `"99"`) {
		t.Errorf("Open = %v, want an error that names format 99", err)
	}
}

func edit(t *testing.T, dir string, change func(*bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(dir, "store.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(change), db.Close()); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkCommit shows what sharing a transaction brings: a single caller pays for a transaction and
// an fsync with each commit.
func BenchmarkCommit(b *testing.B) {
	for _, callers := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			backend := open(b, b.TempDir())
			value := make([]byte, 200)
			var next sync.Mutex
			left := b.N
			take := func() (int, bool) {
				next.Lock()
				defer next.Unlock()
				left--
				return left, left >= 0
			}
			b.ResetTimer()
			var group sync.WaitGroup
			for range callers {
				group.Go(func() {
					for i, ok := take(); ok; i, ok = take() {
						operation := storage.Operation{Key: fmt.Sprintf("policies/p%05d", i%20000), Value: value}
						if err := backend.Commit(b.Context(), []storage.Operation{operation}, func(uint64) {}); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			group.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
		})
	}
}
