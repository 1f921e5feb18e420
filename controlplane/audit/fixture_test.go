package audit_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/nameward/nameward/api/identity"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/controlplane/access"
	"github.com/nameward/nameward/controlplane/audit"
	"github.com/nameward/nameward/controlplane/policy"
	"github.com/nameward/nameward/controlplane/storage/bolt"
	"github.com/nameward/nameward/controlplane/store"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		fmt.Fprintln(os.Stderr, changeUntilKilled(dir))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// kept is a store whose changes are on record.
type kept struct {
	*store.Store
	log   *audit.Log
	dir   string
	close func() error
}

var settings = audit.Config{MaxBytes: 1 << 20, MaxFiles: 8}

func openKept(dir string, cfg audit.Config) (*kept, error) {
	backend, err := bolt.Open(dir)
	if err != nil {
		return nil, err
	}
	s, err := store.Open(context.Background(), backend)
	if err != nil {
		return nil, errors.Join(err, backend.Close())
	}
	if cfg.Dir == "" {
		cfg.Dir = audit.DirOf(dir)
	}
	log, err := audit.Open(cfg, s, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, errors.Join(err, backend.Close())
	}
	s.RecordIn(log)
	return &kept{s, log, cfg.Dir, sync.OnceValue(func() error { return errors.Join(log.Close(), backend.Close()) })}, nil
}

func open(t *testing.T, dir string, cfg audit.Config) *kept {
	t.Helper()
	k, err := openKept(dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.close(); err != nil {
			t.Error(err)
		}
	})
	return k
}

// list returns all events, the latest first, read a few at a time.
func (k *kept) list(t *testing.T, filter audit.Filter) []*namewardv1.AuditEvent {
	t.Helper()
	var all []*namewardv1.AuditEvent
	for at := (audit.Position{}); ; {
		page, err := k.log.List(t.Context(), filter, at, 7, 1<<20)
		if err != nil || page.Damaged > 0 {
			t.Fatalf("list: %v, %d damaged", err, page.Damaged)
		}
		all = append(all, page.Events...)
		if !page.More {
			return all
		}
		at = page.Next
	}
}

func (k *kept) files(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(k.dir, "*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func policyOf(id, description string, domains ...string) *policy.Policy {
	p, err := policy.Parse(&namewardv1.Policy{
		Name: policy.Collection + id, Description: description,
		Rules: []*namewardv1.Rule{{Action: namewardv1.Rule_ALLOW, Domains: domains}},
	})
	if err != nil {
		panic(err)
	}
	return p
}

func setOf(id string, texts ...string) *policy.DomainSet {
	domains, err := policy.ParseDomains(texts, 0)
	if err != nil {
		panic(err)
	}
	return &policy.DomainSet{DomainSet: ruleset.NewDomainSet(policy.DomainSetCollection+id, domains)}
}

// as returns a context of a caller's request.
func as(t *testing.T, who string) context.Context {
	t.Helper()
	id, err := identity.ParseID(who)
	if err != nil {
		t.Fatal(err)
	}
	return access.NewContext(t.Context(), access.Caller{ID: id, Role: identity.Editor, Address: "192.0.2.7:4711"})
}
