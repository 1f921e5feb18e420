package audit_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/controlplane/audit"
	"github.com/nameward/nameward/controlplane/store"
)

// smallDisk returns a directory on a disk of its own.
func smallDisk(t *testing.T, bytes int) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("size=%d", bytes)); err != nil {
		if os.Getenv("REQUIRE_PRIVILEGED") != "1" {
			t.Skipf("a disk of its own needs root: %v", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// What cannot be put on record is not done, and its caller hears why; what was begun has room for its end. With room
// again changes go on, and a server that starts without room is one that serves.
func TestFullDisk(t *testing.T) {
	disk, dir := smallDisk(t, 256<<10), t.TempDir()
	cfg := audit.Config{Dir: filepath.Join(disk, "audit"), MaxBytes: 1 << 20, MaxFiles: 8}
	k := open(t, dir, cfg)
	var mu sync.Mutex
	var made, refused int
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := range 300 {
				_, err := k.PutPolicy(t.Context(), policyOf(fmt.Sprintf("p%d-%d", w, i), strings.Repeat("x", 300), "a.example"), store.Guard{})
				mu.Lock()
				switch {
				case err == nil:
					made++
				case errors.Is(err, store.ErrNotRecorded) && errors.Is(err, audit.ErrFull) && strings.Contains(err.Error(), "no space left on device"):
					refused++
				default:
					t.Errorf("got %v", err)
				}
				mu.Unlock()
			}
		})
	}
	writers.Wait()
	if made == 0 || refused == 0 {
		t.Fatalf("%d changes made, %d refused", made, refused)
	}
	policies, _, _ := k.ListPolicies("", 10_000, store.PolicyFilter{})
	if len(policies) != made {
		t.Errorf("%d policies, %d changes were acknowledged", len(policies), made)
	}
	check := func(want int) {
		t.Helper()
		events := k.list(t, audit.Filter{})
		for _, event := range events {
			if event.GetOutcome() != namewardv1.AuditEvent_COMMITTED {
				t.Errorf("on record without its end: %v", event)
			}
		}
		if len(events) != want {
			t.Errorf("%d events, want %d", len(events), want)
		}
	}
	check(made)
	if err := k.close(); err != nil {
		t.Fatal(err)
	}

	ballast := filepath.Join(disk, "ballast")
	fill(t, ballast)
	k = open(t, dir, cfg)
	if _, err := k.PutPolicy(t.Context(), policyOf("late", "", "a.example"), store.Guard{}); !errors.Is(err, audit.ErrFull) {
		t.Errorf("on the full disk: %v", err)
	}
	check(made)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(k.files(t)[0], 0); err != nil { // room, as by the operator's hand
		t.Fatal(err)
	}
	if err := k.close(); err != nil {
		t.Fatal(err)
	}
	k = open(t, dir, cfg)
	if _, err := k.PutPolicy(t.Context(), policyOf("late", "", "a.example"), store.Guard{}); err != nil {
		t.Errorf("with room again: %v", err)
	}
	check(1)
}

// A disk that was full from the beginning keeps no server from starting.
func TestDiskThatWasAlwaysFull(t *testing.T) {
	disk := smallDisk(t, 64<<10)
	fill(t, filepath.Join(disk, "ballast"))
	k := open(t, t.TempDir(), audit.Config{Dir: filepath.Join(disk, "audit"), MaxBytes: 1 << 20, MaxFiles: 8})
	if _, err := k.PutPolicy(t.Context(), policyOf("p", "", "a.example"), store.Guard{}); !errors.Is(err, store.ErrNotRecorded) {
		t.Errorf("got %v", err)
	}
	if events := k.list(t, audit.Filter{}); len(events) != 0 {
		t.Errorf("events: %v", events)
	}
	if err := os.Remove(filepath.Join(disk, "ballast")); err != nil {
		t.Fatal(err)
	}
	if _, err := k.PutPolicy(t.Context(), policyOf("p", "", "a.example"), store.Guard{}); err != nil {
		t.Errorf("with room: %v", err)
	}
}

// fill takes all the room that there is.
func fill(t *testing.T, path string) {
	t.Helper()
	file, err := os.Create(path) //nolint:gosec // of the test
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for err == nil {
		_, err = file.Write(make([]byte, 4096))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
}
