package storage_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nameward/nameward/controlplane/storage"
)

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
