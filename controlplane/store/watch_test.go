package store_test

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"weak"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/nameward/nameward/controlplane/policy"
	"github.com/nameward/nameward/controlplane/store"
)

// mirror is a client that believes what a watch says: etags by name.
type mirror struct {
	etags    map[string]string
	revision uint64
	synced   bool
}

func (m *mirror) apply(t interface{ Errorf(string, ...any) }, change store.PolicyChange) {
	if change.Reset {
		clear(m.etags)
		m.synced = false
	}
	switch {
	case change.Policy != nil:
		m.etags[change.Policy.Name] = change.Policy.Etag
	case change.Deleted != "":
		if _, known := m.etags[change.Deleted]; !known {
			t.Errorf("%s is deleted, but was never there", change.Deleted)
		}
		delete(m.etags, change.Deleted)
	case change.Synced:
		m.synced = true
	default:
		t.Errorf("change %+v says nothing", change)
	}
	if m.synced && change.Revision <= m.revision && !change.Synced {
		t.Errorf("revision %d comes after %d", change.Revision, m.revision)
	}
	m.revision = change.Revision
}

func contents(s *store.Store) (map[string]string, uint64) {
	etags := map[string]string{}
	snapshot, revision, _ := s.Snapshot()
	for _, p := range snapshot.Policies {
		etags[p.Name] = p.Etag
	}
	return etags, revision
}

// Whatever is written, however slowly a client reads, wherever it breaks off and resumes: when it has read
// everything it has exactly what the store has.
func TestWatchConverges(t *testing.T) {
	dir := t.TempDir()
	rounds := 0
	rapid.Check(t, func(r *rapid.T) {
		rounds++
		s, closed := open(t, fmt.Sprintf("%s/%d", dir, rounds))
		defer closed()
		s.LimitHistory(rapid.IntRange(1, 8).Draw(r, "history"), 1<<20)
		w := &follower{store: s}
		w.restart(0)
		defer func() { w.stop() }()
		writes := 0
		r.Repeat(map[string]func(*rapid.T){
			"put": func(r *rapid.T) {
				writes++
				put(t, s, rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(r, "id"), fmt.Sprint(writes))
			},
			"delete": func(r *rapid.T) {
				etags, _ := contents(s)
				if len(etags) == 0 {
					r.Skip("nothing to delete")
				}
				name := rapid.SampledFrom(slices.Sorted(maps.Keys(etags))).Draw(r, "name")
				if err := s.DeletePolicy(t.Context(), name, store.Guard{}); err != nil {
					r.Fatal(err)
				}
			},
			"node commit": func(r *rapid.T) {
				writes++
				register(t, s, "lab", fmt.Sprint(writes))
			},
			"read some": func(r *rapid.T) {
				for range rapid.IntRange(1, 5).Draw(r, "steps") {
					w.read(r)
				}
			},
			"break and resume":       func(*rapid.T) { w.restart(w.revision) },
			"resume from the future": func(*rapid.T) { w.restart(s.Revision() + 100) },
			"read all": func(r *rapid.T) {
				for w.read(r) {
				}
				want, _ := contents(s)
				if diff := cmp.Diff(want, w.etags); diff != "" {
					r.Errorf("mirror (-want +got):\n%s", diff)
				}
			},
		})
	})
}

// follower pulls a watch step by step.
type follower struct {
	mirror
	store *store.Store
	next  func() (store.PolicyChange, bool)
	stop  func()
}

// restart begins a watch anew. What was mirrored before stays: the watch has to say when it is void.
func (w *follower) restart(after uint64) {
	if w.stop != nil {
		w.stop()
	}
	if after == 0 {
		w.etags, w.synced = map[string]string{}, false
	}
	w.revision = min(after, w.revision)
	w.next, w.stop = iter.Pull(w.store.WatchPolicies(context.Background(), after))
	if after > w.store.Revision() {
		w.revision = 0 // nothing may be read off a position that never was
	}
}

// read takes one step; false when there is none to take.
func (w *follower) read(t interface{ Errorf(string, ...any) }) bool {
	if _, latest := contents(w.store); w.revision == latest {
		return false
	}
	change, ok := w.next()
	if !ok {
		t.Errorf("the watch ended")
		return false
	}
	w.apply(t, change)
	return true
}

func TestSnapshotThenChanges(t *testing.T) {
	s := fresh(t)
	a, b := put(t, s, "a", ""), put(t, s, "b", "")
	next, stop := iter.Pull(s.WatchPolicies(t.Context(), 0))
	defer stop()
	var got []string
	take := func(n int) {
		for range n {
			change, _ := next()
			text := fmt.Sprintf("%d", change.Revision)
			if change.Policy != nil {
				text += " put " + change.Policy.Name
			}
			if change.Deleted != "" {
				text += " deleted " + change.Deleted
			}
			if change.Synced {
				text += " synced"
			}
			if change.Reset {
				text += " reset"
			}
			got = append(got, text)
		}
	}
	take(3)
	c := put(t, s, "c", "")
	if err := s.DeletePolicy(t.Context(), a.Name, store.Guard{}); err != nil {
		t.Fatal(err)
	}
	take(2)
	want := []string{
		"0 put policies/a", "0 put policies/b", fmt.Sprintf("%d synced", b.Revision),
		fmt.Sprintf("%d put policies/c", c.Revision), fmt.Sprintf("%d deleted policies/a", c.Revision+1),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
}

func TestResumeOverARestart(t *testing.T) {
	dir := t.TempDir()
	s, closed := open(t, dir)
	put(t, s, "a", "")
	last := put(t, s, "b", "")
	register(t, s, "lab", "6.1")
	closed()
	s, _ = open(t, dir)
	current, stop := iter.Pull(s.WatchPolicies(t.Context(), last.Revision))
	defer stop()
	older, stopOlder := iter.Pull(s.WatchPolicies(t.Context(), last.Revision-1))
	defer stopOlder()
	if change, _ := older(); !change.Reset || change.Policy == nil {
		t.Errorf("from before the restart's history: %+v, want a reset", change)
	}
	c := put(t, s, "c", "")
	if change, _ := current(); change.Reset || change.Policy != c {
		t.Errorf("from the last revision: %+v, want c alone", change)
	}
}

func TestWatchEndsWithItsContext(t *testing.T) {
	s := fresh(t)
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	synced := make(chan struct{})
	group.Go(func() {
		for change := range s.WatchPolicies(ctx, 0) {
			if change.Synced {
				close(synced)
			}
		}
	})
	<-synced
	cancel()
	group.Wait()
}

// A watcher that reads nothing neither holds up writers nor keeps what they wrote in memory.
func TestSlowWatcherHoldsNothing(t *testing.T) {
	s := fresh(t)
	s.LimitHistory(4, 1<<20)
	next, stop := iter.Pull(s.WatchPolicies(t.Context(), 0))
	defer stop()
	if change, _ := next(); !change.Synced {
		t.Fatalf("first step = %+v, want the end of an empty snapshot", change)
	}
	var written []weak.Pointer[policy.Policy]
	for i := range 50 {
		written = append(written, weak.Make(put(t, s, "web", fmt.Sprint(i))))
	}
	runtime.GC()
	runtime.GC()
	held := 0
	for _, p := range written {
		if p.Value() != nil {
			held++
		}
	}
	// The window, and the mark before it.
	if held > 5 {
		t.Errorf("%d of 50 versions are still in memory, want at most 5", held)
	}
	change, _ := next()
	if !change.Reset || change.Policy == nil || change.Policy.Description != "49" {
		t.Errorf("next step = %+v, want a reset and the newest policy", change)
	}
}

func TestHistoryIsBoundedInBytes(t *testing.T) {
	s := fresh(t)
	first := put(t, s, "web", "")
	s.LimitHistory(1000, 10_000)
	for i := range 20 {
		put(t, s, "web", strings.Repeat("x", 1000)+fmt.Sprint(i))
	}
	for change := range s.WatchPolicies(t.Context(), first.Revision) {
		if !change.Reset {
			t.Errorf("first step = %+v, want a reset: 20 KB do not fit a window of 10 KB", change)
		}
		break
	}
}

// Many readers at their own pace, many writers: all readers end up with what the store holds.
func TestConcurrentWatchers(t *testing.T) {
	s := fresh(t)
	s.LimitHistory(16, 1<<20)
	// Last in order of the names too, for a reader that meets it within a snapshot.
	const last = "policies/z"
	var writers, readers sync.WaitGroup
	mirrors := make([]mirror, 8)
	for i := range mirrors {
		mirrors[i].etags = map[string]string{}
		readers.Go(func() {
			for change := range s.WatchPolicies(t.Context(), 0) {
				mirrors[i].apply(t, change)
				if change.Policy != nil && change.Policy.Name == last {
					return
				}
				for range i {
					runtime.Gosched()
				}
			}
		})
	}
	for w := range 4 {
		writers.Go(func() {
			for i := range 100 {
				put(t, s, fmt.Sprintf("p%d", (w+i)%7), fmt.Sprintf("%d/%d", w, i))
			}
		})
	}
	writers.Wait()
	put(t, s, "z", "")
	readers.Wait()
	want, _ := contents(s)
	for i := range mirrors {
		if diff := cmp.Diff(want, mirrors[i].etags); diff != "" {
			t.Errorf("mirror %d (-want +got):\n%s", i, diff)
		}
	}
}

// A reader that resumed has a position of its own from the start; when it loses that, it gets a snapshot.
func TestResumedReaderThatFallsBehindIsReset(t *testing.T) {
	s := fresh(t)
	s.LimitHistory(2, 1<<20)
	after := put(t, s, "a", "").Revision
	put(t, s, "b", "")
	next, stop := iter.Pull(s.WatchPolicies(t.Context(), after))
	defer stop()
	if change, _ := next(); change.Reset || change.Policy == nil || change.Policy.Name != "policies/b" {
		t.Fatalf("first step = %+v, want b alone", change)
	}
	for i := range 5 {
		put(t, s, "c", fmt.Sprint(i))
	}
	if change, _ := next(); !change.Reset || change.Policy == nil || change.Policy.Name != "policies/a" {
		t.Errorf("second step = %+v, want a reset that begins with a", change)
	}
}
