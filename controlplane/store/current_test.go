package store_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"pgregory.net/rapid"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/controlplane/policy"
	"github.com/nameward/nameward/controlplane/storage"
	"github.com/nameward/nameward/controlplane/store"
)

// volatile is a storage that keeps nothing: for tests of what is in memory.
type volatile struct {
	mu       sync.Mutex // guards revision
	revision uint64
}

func (v *volatile) Load(context.Context, func(storage.Record) error) (storage.Meta, error) {
	return storage.Meta{StoreID: "volatile", Revision: 1}, nil
}

func (v *volatile) Commit(_ context.Context, _ []storage.Operation, applied func(uint64)) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.revision++
	applied(v.revision)
	return nil
}

func (v *volatile) Sync(context.Context) error { return nil }

func (v *volatile) Close() error { return nil }

// What Snapshot keeps beside the tables is what is in the tables, however many changes lie between two looks.
func TestSnapshotIsWhatTheTablesHold(t *testing.T) {
	s, err := store.Open(t.Context(), &volatile{})
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		for range rapid.SampledFrom([]int{0, 1, 7, 400}).Draw(rt, "changes") {
			name := fmt.Sprintf("policies/p%d", rapid.IntRange(0, 400).Draw(rt, "policy"))
			if rapid.IntRange(0, 4).Draw(rt, "delete") == 0 {
				_ = s.DeletePolicy(context.Background(), name, store.Guard{}) // it may not be there
				continue
			}
			p, err := policy.Parse(&namewardv1.Policy{
				Name: name, Priority: rapid.Int32Range(0, 3).Draw(rt, "priority"), Mode: namewardv1.Policy_Mode(rapid.IntRange(1, 3).Draw(rt, "mode")),
				Rules: []*namewardv1.Rule{{Action: namewardv1.Rule_ALLOW, Domains: []string{fmt.Sprintf("h%d.test", rapid.IntRange(0, 9).Draw(rt, "host"))}}},
			})
			if err != nil {
				rt.Fatal(err)
			}
			if _, err := s.PutPolicy(context.Background(), p, store.Guard{}); err != nil {
				rt.Fatal(err)
			}
		}
		snapshot, _, _ := s.Snapshot()
		listed, _, err := s.ListPolicies("", 1000, store.PolicyFilter{})
		if err != nil {
			rt.Fatal(err)
		}
		held := map[*policy.Policy]bool{}
		var size policy.Size
		for i, p := range snapshot.Policies {
			held[p], size = true, size.Plus(p.Size)
			if i > 0 && snapshot.Policies[i-1].Rules.Compare(p.Rules) >= 0 {
				rt.Errorf("%s comes behind %s", p.Name, snapshot.Policies[i-1].Name)
			}
		}
		for _, p := range listed {
			if !held[p] {
				rt.Errorf("%s is not part of the snapshot", p.Name)
			}
		}
		if len(listed) != len(snapshot.Policies) || s.Size() != size {
			rt.Errorf("%d policies of size %+v, the snapshot has %d of size %+v", len(listed), s.Size(), len(snapshot.Policies), size)
		}
	})
}
