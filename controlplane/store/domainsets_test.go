package store_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/nameward/nameward/api/domain"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/controlplane/policy"
	"github.com/nameward/nameward/controlplane/storage"
	"github.com/nameward/nameward/controlplane/storage/bolt"
	"github.com/nameward/nameward/controlplane/store"
)

func domainSet(t testing.TB, id string, domains ...string) *policy.DomainSet {
	t.Helper()
	set, err := policy.ParseDomainSet(&namewardv1.DomainSet{Name: policy.DomainSetCollection + id, Domains: domains})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func putSet(t testing.TB, s *store.Store, set *policy.DomainSet) *policy.DomainSet {
	t.Helper()
	stored, err := s.PutDomainSet(t.Context(), set, store.Guard{})
	if err != nil {
		t.Fatalf("PutDomainSet: %v", err)
	}
	return stored
}

// naming is a policy that names sets.
func naming(t testing.TB, id string, sets ...string) *policy.Policy {
	t.Helper()
	p, err := policy.Parse(&namewardv1.Policy{
		Name: policy.Collection + id, Rules: []*namewardv1.Rule{{Action: namewardv1.Rule_ALLOW, DomainSets: sets}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// wide returns so many domains.
func wide(count int) []string {
	domains := make([]string, count)
	for i := range domains {
		domains[i] = fmt.Sprintf("h%d.example", i)
	}
	return domains
}

func TestPutDomainSet(t *testing.T) {
	s := fresh(t)
	_, before, changed := s.Snapshot()
	made := putSet(t, s, domainSet(t, "a", "b.example", "a.example"))
	<-changed
	if made.Etag == "" || made.Revision != before+1 || s.RulesRevision() != made.Revision || made.CreateTime.IsZero() {
		t.Errorf("made %+v, want an etag, a time and revision %d", made, before+1)
	}
	described := *domainSet(t, "a", "a.example", "b.example")
	if same := putSet(t, s, &described); same != made || s.Revision() != made.Revision {
		t.Errorf("equal content made %+v, want what there is", same)
	}
	described.Description = "new"
	next := putSet(t, s, &described)
	if next.Etag == made.Etag || !next.CreateTime.Equal(made.CreateTime) || !next.UpdateTime.After(made.UpdateTime) {
		t.Errorf("changed %+v, made %+v: want another etag, the same creation, a later update", next, made)
	}
	snapshot, revision, _ := s.Snapshot()
	if snapshot.DomainSets["domainSets/a"] != next || revision != next.Revision {
		t.Errorf("snapshot has %+v at %d, want %+v", snapshot.DomainSets, revision, next)
	}
	if _, err := s.PutDomainSet(t.Context(), domainSet(t, "a"), store.Guard{Etag: made.Etag}); !errors.Is(err, store.ErrStale) {
		t.Errorf("PutDomainSet with a stale etag = %v, want ErrStale", err)
	}
	if _, err := s.PutDomainSet(t.Context(), domainSet(t, "a"), store.Guard{MustNotExist: true}); !errors.Is(err, store.ErrExists) {
		t.Errorf("PutDomainSet of what must not exist = %v, want ErrExists", err)
	}
	// Changes of sets are none of a policy: who watches those is not sent anything, nor does it lose its place.
	p := put(t, s, "web", "")
	putSet(t, s, domainSet(t, "b"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for change := range s.WatchPolicies(ctx, p.Revision-1) {
		if change.Reset || change.Policy == nil || change.Policy.Name != p.Name {
			t.Errorf("watch yields %+v, want the policy", change)
		}
		cancel()
	}
}

func TestReferences(t *testing.T) {
	s := fresh(t)
	_, err := s.PutPolicy(t.Context(), naming(t, "web", "domainSets/a", "domainSets/b"), store.Guard{})
	var unmet *store.PreconditionError
	if !errors.As(err, &unmet) || len(unmet.Violations) != 2 || unmet.Violations[1] != (store.Violation{Missing: true, Subject: "domainSets/b", Field: "rules[0].domain_sets[1]"}) {
		t.Fatalf("PutPolicy = %v, want every set that is missing", err)
	}
	a, b := putSet(t, s, domainSet(t, "a")), putSet(t, s, domainSet(t, "b"))
	if _, err := s.PutPolicy(t.Context(), naming(t, "web", "domainSets/a"), store.Guard{}); err != nil {
		t.Fatal(err)
	}
	err = s.DeleteDomainSet(t.Context(), a.Name, store.Guard{})
	if !errors.As(err, &unmet) || len(unmet.Violations) != 1 || unmet.Violations[0].Subject != "policies/web" {
		t.Errorf("DeleteDomainSet = %v, want the policy that names it", err)
	}
	if err := s.DeleteDomainSet(t.Context(), b.Name, store.Guard{Etag: a.Etag}); !errors.Is(err, store.ErrStale) {
		t.Errorf("DeleteDomainSet with a stale etag = %v, want ErrStale", err)
	}
	if err := s.DeleteDomainSet(t.Context(), b.Name, store.Guard{Etag: b.Etag}); err != nil {
		t.Errorf("DeleteDomainSet = %v", err)
	}
	if err := s.DeleteDomainSet(t.Context(), b.Name, store.Guard{}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("DeleteDomainSet of nothing = %v, want ErrNotFound", err)
	}
	if _, err := s.DomainSet(b.Name); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("DomainSet after its deletion = %v, want ErrNotFound", err)
	}
}

// Whatever becomes of sets, after a restart they are what they were.
func TestDomainSetsSurviveARestart(t *testing.T) {
	root, rounds := t.TempDir(), 0
	many := domainSet(t, "x", wide(2000)...).Domains
	rapid.Check(t, func(rt *rapid.T) {
		rounds++
		dir := fmt.Sprintf("%s/%d", root, rounds)
		s, closed := open(t, dir)
		ids := rapid.SampledFrom([]string{"a", "a-b", "a.b", "b"})
		rt.Repeat(map[string]func(*rapid.T){
			"replace": func(rt *rapid.T) {
				from, to := rapid.IntRange(0, len(many)).Draw(rt, "from"), rapid.IntRange(0, len(many)).Draw(rt, "to")
				set := &policy.DomainSet{DomainSet: ruleset.NewDomainSet("domainSets/"+ids.Draw(rt, "id"), slices.Clone(many[min(from, to):max(from, to)]))}
				set.Description = rapid.SampledFrom([]string{"", "x"}).Draw(rt, "description")
				putSet(t, s, set)
			},
			"edit": func(rt *rapid.T) {
				current, err := s.DomainSet("domainSets/" + ids.Draw(rt, "id"))
				if err != nil {
					rt.Skip()
				}
				edits := rapid.MapOfN(rapid.SampledFrom(many), rapid.Bool(), 1, 5).Draw(rt, "edits")
				next := *current
				next.DomainSet = current.Edited(edits)
				putSet(t, s, &next)
			},
			"delete": func(rt *rapid.T) {
				if err := s.DeleteDomainSet(t.Context(), "domainSets/"+ids.Draw(rt, "id"), store.Guard{}); err != nil && !errors.Is(err, store.ErrNotFound) {
					rt.Fatal(err)
				}
			},
		})
		before, revision, _ := s.Snapshot()
		closed()
		s, closed = open(t, dir)
		defer closed()
		after, got, _ := s.Snapshot()
		if got != revision {
			rt.Errorf("revision is %d, was %d", got, revision)
		}
		everything := cmp.Exporter(func(reflect.Type) bool { return true })
		if diff := cmp.Diff(before.DomainSets, after.DomainSets, everything); diff != "" {
			rt.Errorf("sets (-before +after):\n%s", diff)
		}
	})
}

// counting counts what is written.
type counting struct {
	storage.Backend
	records, bytes int
}

func (c *counting) Commit(ctx context.Context, operations []storage.Operation, applied func(uint64)) error {
	for _, operation := range operations {
		c.records++
		c.bytes += len(operation.Key) + len(operation.Value)
	}
	return c.Backend.Commit(ctx, operations, applied)
}

// One domain more or less costs a bucket, not the set, also as a set grows by one at a time.
func TestAChangeIsWrittenNotTheSet(t *testing.T) {
	backend, err := bolt.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = backend.Close() })
	counted := &counting{Backend: backend}
	s, err := store.Open(t.Context(), counted)
	if err != nil {
		t.Fatal(err)
	}
	set := putSet(t, s, domainSet(t, "large", wide(100_000)...))
	whole := counted.bytes
	for i := range 10 {
		counted.records, counted.bytes = 0, 0
		next := *set
		next.DomainSet = set.Edited(map[domain.Pattern]bool{domainSet(t, "x", fmt.Sprintf("new%d.example", i)).Domains[0]: true})
		set = putSet(t, s, &next)
		if counted.records != 2 || counted.bytes > whole/50 {
			t.Errorf("%d records of %d bytes were written for one domain of a set of %d bytes", counted.records, counted.bytes, whole)
		}
	}
	counted.bytes = 0
	small := putSet(t, s, domainSet(t, "grows"))
	for i := range 3000 {
		next := *small
		next.DomainSet = small.Edited(map[domain.Pattern]bool{set.Domains[i]: true})
		small = putSet(t, s, &next)
	}
	if perDomain := counted.bytes / 3000; perDomain > 50_000 {
		t.Errorf("%d bytes were written for each domain of a set that grew", perDomain)
	}
}

func TestCorruptDomainSetStopsOpen(t *testing.T) {
	good := func(t *testing.T) map[string][]byte {
		t.Helper()
		backend, err := bolt.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer backend.Close() //nolint:errcheck // read already
		s, err := store.Open(t.Context(), backend)
		if err != nil {
			t.Fatal(err)
		}
		putSet(t, s, domainSet(t, "s", wide(1500)...))
		records := map[string][]byte{}
		if _, err := backend.Load(t.Context(), func(r storage.Record) error { records[r.Key] = r.Value; return nil }); err != nil {
			t.Fatal(err)
		}
		return records
	}
	for name, damage := range map[string]func(map[string][]byte){
		"a bucket is missing":        func(r map[string][]byte) { delete(r, "domainSets/s/0001") },
		"the last bucket is missing": func(r map[string][]byte) { delete(r, "domainSets/s/0003") },
		"the record of its own":      func(r map[string][]byte) { delete(r, "domainSets/s") },
		"a domain is missing": func(r map[string][]byte) {
			r["domainSets/s/0000"] = r["domainSets/s/0000"][strings.Index(string(r["domainSets/s/0000"]), "\n")+1:]
		},
		"a domain in another bucket": func(r map[string][]byte) {
			r["domainSets/s/0000"], r["domainSets/s/0001"] = r["domainSets/s/0001"], r["domainSets/s/0000"]
		},
		"a text that is no domain":       func(r map[string][]byte) { r["domainSets/s/0000"] = append(r["domainSets/s/0000"], "a..b\n"...) },
		"a domain not in canonical form": func(r map[string][]byte) { r["domainSets/s/0000"] = append(r["domainSets/s/0000"], "A.example\n"...) },
		"another set":                    func(r map[string][]byte) { r["domainSets/t"] = r["domainSets/s"]; delete(r, "domainSets/s") },
		"no bucket": func(r map[string][]byte) {
			maps.DeleteFunc(r, func(key string, _ []byte) bool { return strings.Count(key, "/") > 1 })
		},
		"a policy names a set that is not there": func(r map[string][]byte) {
			r["policies/p"] = []byte("\x0a\x0apolicies/p\x3a\x13\x08\x01\x1a\x0fdomainSets/gone")
		},
	} {
		t.Run(name, func(t *testing.T) {
			records := good(t)
			damage(records)
			backend, err := bolt.Open(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer backend.Close() //nolint:errcheck // the test is about Open
			var operations []storage.Operation
			for key, value := range records {
				operations = append(operations, storage.Operation{Key: key, Value: value})
			}
			if err := backend.Commit(t.Context(), operations, func(uint64) {}); err != nil {
				t.Fatal(err)
			}
			if _, err := store.Open(t.Context(), backend); !errors.Is(err, storage.ErrCorrupt) {
				t.Errorf("Open = %v, want ErrCorrupt", err)
			} else {
				t.Log(err)
			}
		})
	}
}
