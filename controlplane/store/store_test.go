package store_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/controlplane/policy"
	"github.com/nameward/nameward/controlplane/storage"
	"github.com/nameward/nameward/controlplane/storage/bolt"
	"github.com/nameward/nameward/controlplane/store"
)

// open opens the store of a directory; closing is left to the test's end unless the test does it.
func open(t testing.TB, dir string) (*store.Store, func()) {
	t.Helper()
	backend, err := bolt.Open(dir)
	if err != nil {
		t.Fatalf("open storage: %v", err)
	}
	s, err := store.Open(t.Context(), backend)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	closed := sync.OnceFunc(func() {
		if err := backend.Close(); err != nil {
			t.Errorf("close storage: %v", err)
		}
	})
	t.Cleanup(closed)
	return s, closed
}

func fresh(t testing.TB) *store.Store {
	t.Helper()
	s, _ := open(t, t.TempDir())
	return s
}

func parse(t testing.TB, id, description string, priority int32) *policy.Policy {
	t.Helper()
	p, err := policy.Parse(&namewardv1.Policy{
		Name: policy.Collection + id, Description: description, Priority: priority,
		NodeSelector: &namewardv1.NodeSelector{MatchLabels: map[string]string{"role": "web"}},
		Rules:        []*namewardv1.Rule{{Action: namewardv1.Rule_ALLOW, Domains: []string{"*.Example.com"}}},
	})
	if err != nil {
		t.Fatalf("Parse: %v", err)
	}
	return p
}

func put(t testing.TB, s *store.Store, id, description string) *policy.Policy {
	t.Helper()
	p, err := s.PutPolicy(t.Context(), parse(t, id, description, 0), store.Guard{})
	if err != nil {
		t.Fatalf("PutPolicy: %v", err)
	}
	return p
}

func TestPutPolicy(t *testing.T) {
	s := fresh(t)
	before := s.Revision()
	made := put(t, s, "web", "one")
	if made.Etag == "" || made.Revision != before+1 || made.CreateTime.IsZero() || !made.CreateTime.Equal(made.UpdateTime) {
		t.Errorf("made %+v, want an etag, revision %d and equal times", made, before+1)
	}
	if made.Message.GetEtag() != made.Etag {
		t.Errorf("message has etag %q, policy %q", made.Message.GetEtag(), made.Etag)
	}
	changed := put(t, s, "web", "two")
	if changed.Etag == made.Etag || !changed.CreateTime.Equal(made.CreateTime) || !changed.UpdateTime.After(made.UpdateTime) {
		t.Errorf("changed %+v, made %+v: want another etag, the same creation, a later update", changed, made)
	}
	same := put(t, s, "web", "two")
	if same != changed || s.Revision() != changed.Revision {
		t.Errorf("equal content made %+v at %d, want what there is, %+v", same, s.Revision(), changed)
	}
	got, err := s.Policy("policies/web")
	if err != nil || got != changed {
		t.Errorf("Policy = %+v, %v, want what was put", got, err)
	}
}

func TestGuards(t *testing.T) {
	s := fresh(t)
	old := put(t, s, "web", "one")
	now := put(t, s, "web", "two")
	put(t, s, "gone", "")
	for name, test := range map[string]struct {
		id    string
		guard store.Guard
		want  error
	}{
		"must not exist but does":   {"web", store.Guard{MustNotExist: true}, store.ErrExists},
		"must exist but does not":   {"none", store.Guard{MustExist: true}, store.ErrNotFound},
		"stale etag":                {"web", store.Guard{Etag: old.Etag}, store.ErrStale},
		"etag of what is not there": {"none", store.Guard{Etag: old.Etag}, store.ErrStale},
	} {
		_, err := s.PutPolicy(t.Context(), parse(t, test.id, "x", 0), test.guard)
		if !errors.Is(err, test.want) || !strings.Contains(err.Error(), "policies/"+test.id) {
			t.Errorf("%s: PutPolicy = %v, want %v that names the policy", name, err, test.want)
		}
	}
	if err := s.DeletePolicy(t.Context(), "policies/web", store.Guard{Etag: old.Etag}); !errors.Is(err, store.ErrStale) {
		t.Errorf("DeletePolicy with a stale etag = %v, want ErrStale", err)
	}
	if err := s.DeletePolicy(t.Context(), "policies/none", store.Guard{}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("DeletePolicy of nothing = %v, want ErrNotFound", err)
	}
	if err := s.DeletePolicy(t.Context(), "policies/web", store.Guard{Etag: now.Etag}); err != nil {
		t.Errorf("DeletePolicy with the right etag: %v", err)
	}
	if _, err := s.Policy("policies/web"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Policy after its deletion = %v, want ErrNotFound", err)
	}
}

func TestDeletedAndMadeAnewHasAnotherEtag(t *testing.T) {
	s := fresh(t)
	first := put(t, s, "web", "one")
	if err := s.DeletePolicy(t.Context(), first.Name, store.Guard{}); err != nil {
		t.Fatal(err)
	}
	if second := put(t, s, "web", "one"); second.Etag == first.Etag {
		t.Errorf("both have etag %q", first.Etag)
	}
}

// Many writers hold the same etag. One wins each round, the others are told that they are stale.
func TestEtagRaceHasOneWinner(t *testing.T) {
	s := fresh(t)
	etag := put(t, s, "web", "start").Etag
	for round := range 20 {
		const writers = 8
		results := make([]error, writers)
		etags := make([]string, writers)
		var group sync.WaitGroup
		for i := range writers {
			p := parse(t, "web", fmt.Sprintf("round %d writer %d", round, i), 0)
			group.Go(func() {
				stored, err := s.PutPolicy(t.Context(), p, store.Guard{Etag: etag})
				if results[i] = err; err == nil {
					etags[i] = stored.Etag
				}
			})
		}
		group.Wait()
		winners := 0
		for i, err := range results {
			switch {
			case err == nil:
				winners++
				etag = etags[i]
			case !errors.Is(err, store.ErrStale):
				t.Errorf("round %d: PutPolicy = %v, want ErrStale", round, err)
			}
		}
		if winners != 1 {
			t.Fatalf("round %d has %d winners, want 1", round, winners)
		}
	}
}

func TestRestartKeepsEverything(t *testing.T) {
	dir := t.TempDir()
	s, closed := open(t, dir)
	id, err := node.ParseID("lab")
	if err != nil {
		t.Fatal(err)
	}
	web, other := put(t, s, "web", "one"), put(t, s, "other", "two")
	if err := s.DeletePolicy(t.Context(), other.Name, store.Guard{}); err != nil {
		t.Fatal(err)
	}
	_, policyRevision, _ := s.Snapshot()
	if err := s.RegisterNode(t.Context(), store.Node{ID: id, Labels: map[string]string{"role": "web"}, Kernel: "6.18"}); err != nil {
		t.Fatal(err)
	}
	storeID, revision := s.ID(), s.Revision()
	closed()

	s, _ = open(t, dir)
	if s.ID() != storeID || s.Revision() != revision {
		t.Errorf("store %s at %d, want %s at %d", s.ID(), s.Revision(), storeID, revision)
	}
	snapshot, gotRevision, _ := s.Snapshot()
	policies := snapshot.Policies
	if gotRevision != policyRevision || len(policies) != 1 {
		t.Fatalf("%d policies of revision %d, want 1 of %d: the node's commit changed none", len(policies), gotRevision, policyRevision)
	}
	if diff := cmp.Diff(web, policies[0], protocmp.Transform(), cmp.Exporter(func(reflect.Type) bool { return true })); diff != "" {
		t.Errorf("policy (-want +got):\n%s", diff)
	}
	n, err := s.Node(id)
	if err != nil || n.Kernel != "6.18" || n.Labels["role"] != "web" {
		t.Errorf("Node = %+v, %v, want what registered", n, err)
	}
	if _, err := s.PutPolicy(t.Context(), parse(t, "web", "after", 0), store.Guard{Etag: web.Etag}); err != nil {
		t.Errorf("PutPolicy with the etag of before: %v", err)
	}
}

func TestListPolicies(t *testing.T) {
	s := fresh(t)
	var want []string
	for _, id := range []string{"a", "a-b", "a.b", "ab", "b"} {
		put(t, s, id, "")
		want = append(want, policy.Collection+id)
	}
	var got []string
	for after, more := "", true; more; {
		var page []*policy.Policy
		var err error
		page, more, err = s.ListPolicies(after, 2, store.PolicyFilter{})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range page {
			got = append(got, p.Name)
			after = p.Name
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("names over all pages (-want +got):\n%s", diff)
	}
}

func TestPoliciesAreInOrderOfEvaluation(t *testing.T) {
	s := fresh(t)
	_, _, changed := s.Snapshot()
	for id, priority := range map[string]int32{"late": 5, "first": -7, "b": 0, "a": 0, "last": 1 << 30} {
		if _, err := s.PutPolicy(t.Context(), parse(t, id, "", priority), store.Guard{}); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-changed:
	default:
		t.Error("the channel is open after a change")
	}
	snapshot, revision, changed := s.Snapshot()
	var got []string
	for _, p := range snapshot.Policies {
		got = append(got, strings.TrimPrefix(p.Name, policy.Collection))
	}
	if diff := cmp.Diff([]string{"first", "a", "b", "late", "last"}, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	if revision != s.Revision() {
		t.Errorf("revision = %d, want %d", revision, s.Revision())
	}
	// A policy that moves must not be there twice.
	if _, err := s.PutPolicy(t.Context(), parse(t, "first", "", 100), store.Guard{}); err != nil {
		t.Fatal(err)
	}
	<-changed
	snapshot, _, _ = s.Snapshot()
	if policies := snapshot.Policies; len(policies) != 5 || policies[3].Name != "policies/first" {
		t.Errorf("%d policies, the fourth is %s, want 5 and policies/first", len(policies), policies[3].Name)
	}
}

func TestCorruptObjectStopsOpen(t *testing.T) {
	for name, operation := range map[string]storage.Operation{
		"not protobuf":    {Key: "policies/web", Value: []byte{0xff}},
		"another name":    {Key: "policies/web", Value: []byte("\x0a\x0cpolicies/api")},
		"not a policy":    {Key: "policies/web", Value: []byte("\x0a\x0cpolicies/web\x3a\x05\x12\x03a*b")},
		"unknown objects": {Key: "gadgets/web", Value: []byte("x")},
	} {
		t.Run(name, func(t *testing.T) {
			backend, err := bolt.Open(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer backend.Close() // the test is about Open
			if err := backend.Commit(context.Background(), []storage.Operation{operation}, func(uint64) {}); err != nil {
				t.Fatal(err)
			}
			if _, err := store.Open(t.Context(), backend); !errors.Is(err, storage.ErrCorrupt) || !strings.Contains(err.Error(), operation.Key) {
				t.Errorf("Open = %v, want ErrCorrupt that names %s", err, operation.Key)
			}
		})
	}
}
