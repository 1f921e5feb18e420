package dataplane

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/dataplane/netfilter/netfiltertest"
	"github.com/nameward/nameward/dataplane/preflight"
)

// TestPinsAreLocked: two agents with one directory of pins do not run together, under whatever path they
// know it and wherever they keep their state.
func TestPinsAreLocked(t *testing.T) {
	bpffs := netfiltertest.EnterNode(t)
	first := testConfig(t, "127.0.0.1:1")
	first.BPFDir = filepath.Join(bpffs, "nameward")
	release, err := lockBoth(first)
	if err != nil {
		t.Fatal(err)
	}
	bound, link := t.TempDir(), filepath.Join(t.TempDir(), "link")
	if err := errors.Join(unix.Mount(bpffs, bound, "", unix.MS_BIND, ""), os.Symlink(first.BPFDir, link)); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(bound, unix.MNT_DETACH) //nolint:errcheck // gone with the namespace
	pid := fmt.Sprintf("pid %d", os.Getpid())
	for name, dir := range map[string]string{"the same path": first.BPFDir, "another mount": filepath.Join(bound, "nameward"), "a symbolic link": link} {
		second := testConfig(t, "127.0.0.1:1")
		second.BPFDir = dir
		if _, err := lockBoth(second); !errors.Is(err, errRunning) || !strings.Contains(err.Error(), pid) {
			t.Errorf("%s: got %v, want an error that names %s", name, err, pid)
		}
		if held, _, err := lockedBy(filepath.Join(second.StateDir, lockFile)); held || err != nil {
			t.Errorf("%s: the state directory is still locked (%v)", name, err)
		}
		if _, err := Cleanup(t.Context(), second); !errors.Is(err, errRunning) {
			t.Errorf("cleanup by %s: got %v, want it refused", name, err)
		}
		if r := anotherAgent(second); r.Level != preflight.Failed || !strings.Contains(r.Detail, pid) {
			t.Errorf("check by %s: %+v", name, r)
		}
	}
	if r := anotherAgent(first); r.Level != preflight.Warning || !strings.Contains(r.Detail, pid) {
		t.Errorf("check of the agent itself: %+v", r)
	}
	elsewhere := first
	elsewhere.BPFDir = filepath.Join(bpffs, "elsewhere")
	if r := anotherAgent(elsewhere); r.Level != preflight.Failed {
		t.Errorf("check with the state directory alone: %+v", r)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	if r := anotherAgent(first); r.Level != preflight.OK {
		t.Errorf("check after its end: %+v", r)
	}
	again, err := lockBoth(first)
	if err != nil {
		t.Fatal(err)
	}
	if err := again(); err != nil {
		t.Error(err)
	}
}

// TestLockOfWhatIsGone: who had opened a directory that cleanup then removed does not take it for locked.
func TestLockOfWhatIsGone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pins")
	opened := 0
	held, err := acquire(dir, func() (*os.File, error) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		file, err := os.Open(dir)
		if opened++; opened == 1 {
			err = errors.Join(err, os.Remove(dir))
		}
		return file, err
	})
	if err != nil || opened != 2 {
		t.Fatalf("opened %d times: %v", opened, err)
	}
	if held, _, err := lockedBy(dir); !held || err != nil {
		t.Errorf("the directory is not locked (%v)", err)
	}
	if err := held.release(); err != nil {
		t.Error(err)
	}
}

// TestRulesOfAnotherAgent: an agent that runs with other directories in the same network namespace is found by
// its rules, and one that left them is not in the way.
func TestRulesOfAnotherAgent(t *testing.T) {
	bpffs := netfiltertest.EnterNode(t)
	other := testConfig(t, "127.0.0.1:1")
	other.BPFDir = filepath.Join(bpffs, "other")
	leaveBehind(t, other)
	mine := testConfig(t, "127.0.0.1:1")
	mine.BPFDir = filepath.Join(bpffs, "nameward")
	if r := anotherNamespace(t.Context(), mine); r.Level != preflight.OK {
		t.Errorf("what was left by one that is gone: %+v", r)
	}
	held, err := takeDirLock(other.BPFDir)
	if err != nil {
		t.Fatal(err)
	}
	defer held.release() //nolint:errcheck // the test is over
	if r := anotherNamespace(t.Context(), mine); r.Level != preflight.Failed || !strings.Contains(r.Detail, other.BPFDir) {
		t.Errorf("one that runs: %+v", r)
	}
	if r := anotherNamespace(t.Context(), other); r.Level != preflight.OK {
		t.Errorf("its own rules: %+v", r)
	}
}
