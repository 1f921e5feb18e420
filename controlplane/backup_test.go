package controlplane_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/controlplane"
	"github.com/nameward/nameward/controlplane/storage"
	"github.com/nameward/nameward/controlplane/storage/bolt"
)

// A backup that is taken under writes has all that was acknowledged before it, and can be restored.
func TestBackupUnderWrites(t *testing.T) {
	// A path longer than a socket's address has room for.
	dataDir := filepath.Join(t.TempDir(), strings.Repeat("long/", 25))
	s := start(t, dataDir)
	s.replace("domainSets/set", manyDomains(20_000, "set"))
	var acknowledged atomic.Int64
	var stop atomic.Bool
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := 0; !stop.Load(); i++ {
				s.put(fmt.Sprintf("w%d-%d", w, i), "", fmt.Sprintf("h%d.example.com", i))
				acknowledged.Add(1)
			}
		})
	}
	for acknowledged.Load() < 20 {
		s.put("waiting", "", "waiting.example.com")
	}
	before, err := s.policies.ListPolicies(t.Context(), &namewardv1.ListPoliciesRequest{PageSize: 1000})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "backup")
	meta, err := controlplane.BackupTo(t.Context(), dataDir, file)
	if err != nil {
		t.Fatal(err)
	}
	stop.Store(true)
	writers.Wait()
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the backup: %v, %v; want mode 0600", info, err)
	}
	// Not over a server that runs, whatever is asked.
	for _, replace := range []bool{false, true} {
		if err := restore(t, dataDir, file, replace); !errors.Is(err, bolt.ErrInUse) {
			t.Errorf("over a running server: %v", err)
		}
	}
	restored := t.TempDir()
	if err := restore(t, restored, file, false); err != nil {
		t.Fatal(err)
	}
	if err := restore(t, restored, file, false); !errors.Is(err, bolt.ErrHolds) {
		t.Errorf("over a store: %v", err)
	}
	if err := restore(t, restored, file, true); err != nil {
		t.Errorf("in place of a store: %v", err)
	}
	if _, err := bolt.Check(filepath.Join(restored, "store.db.before-restore")); err != nil {
		t.Errorf("the store that was put aside: %v", err)
	}
	s.stop()
	if _, err := os.Lstat(filepath.Join(dataDir, "server.sock")); err == nil {
		t.Error("the socket is left")
	}
	checkRestored(t, restored, meta, before.GetPolicies())
	// Without a server the directory itself is read.
	var again bytes.Buffer
	if err := controlplane.Backup(t.Context(), restored, &again); err != nil || again.Len() == 0 {
		t.Errorf("without a server: %d bytes, %v", again.Len(), err)
	}
	if err := controlplane.Backup(t.Context(), t.TempDir(), io.Discard); !errors.Is(err, bolt.ErrEmpty) {
		t.Errorf("of an empty directory: %v", err)
	}
}

func restore(t *testing.T, dataDir, file string, replace bool) error {
	t.Helper()
	backup, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer backup.Close()
	_, err = controlplane.Restore(dataDir, backup, replace)
	return err
}

// checkRestored starts a server on what was restored.
func checkRestored(t *testing.T, dataDir string, meta storage.Meta, policies []*namewardv1.Policy) {
	t.Helper()
	s := start(t, dataDir)
	for _, p := range policies {
		if _, err := s.policies.GetPolicy(t.Context(), &namewardv1.GetPolicyRequest{Name: p.GetName()}); err != nil {
			t.Errorf("a policy that was acknowledged before: %v", err)
		}
	}
	set, err := s.sets.GetDomainSet(t.Context(), &namewardv1.GetDomainSetRequest{Name: "domainSets/set"})
	if err != nil || set.GetDomainCount() != 20_000 {
		t.Errorf("domain set: %v, %v", set.GetDomainCount(), err)
	}
	a := newAgent(t, "n", nil)
	a.connect(s.connection)
	a.complete()
	if a.storeID == meta.StoreID || a.storeID == "" {
		t.Errorf("the store has the id %q of the one that the backup is of", a.storeID)
	}
	a.leave()
	s.stop()
}

func TestDamagedBackupIsRefused(t *testing.T) {
	dataDir := t.TempDir()
	s := start(t, dataDir)
	s.replace("domainSets/set", manyDomains(5_000, "set"))
	var backup bytes.Buffer
	if err := controlplane.Backup(t.Context(), dataDir, &backup); err != nil {
		t.Fatal(err)
	}
	s.stop()
	whole := backup.Bytes()
	spoilt := bytes.Clone(whole)
	at := bytes.Index(spoilt, []byte("host-0004321"))
	spoilt[at]++
	for fact, damaged := range map[string][]byte{
		"cut short": whole[:len(whole)/2], "empty": nil, "something else": bytes.Repeat([]byte("text "), 10_000), "one bit": spoilt,
	} {
		target := t.TempDir()
		_, err := controlplane.Restore(target, bytes.NewReader(damaged), false)
		if err == nil {
			t.Errorf("%s: restored", fact)
		}
		if left, _ := os.ReadDir(target); len(left) != 0 {
			t.Errorf("%s: %v is left", fact, left)
		}
	}
}
