package storage_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nameward/nameward/controlplane/storage"
)

// The tests of this file hold every kind of storage to the same contract.

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
