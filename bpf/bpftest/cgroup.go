package bpftest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Cgroups makes control groups and moves processes between them. A group is named by its path from the
// root; names are the machine's, so a test makes them its own.
type Cgroups struct {
	t    testing.TB
	root string
	home string // where this process was before
}

// NewCgroups finds the cgroup2 hierarchy. What is made and moved ends with the test.
func NewCgroups(t testing.TB) *Cgroups {
	t.Helper()
	RequirePrivileged(t)
	c := &Cgroups{t: t, root: cgroupMount(t)}
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(groups)) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			c.home = strings.TrimSpace(path)
		}
	}
	return c
}

func cgroupMount(t testing.TB) string {
	t.Helper()
	// Of this thread: the first one, which /proc/self is of, may be in namespaces that a test left it in.
	mounts, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); strings.Contains(line, " - cgroup2 ") && fields[3] == "/" {
			return fields[4]
		}
	}
	t.Fatal("no cgroup2 hierarchy is mounted, which these tests need: mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified")
	return ""
}

// Dir is the directory of a control group.
func (c *Cgroups) Dir(path string) string { return filepath.Join(c.root, path) }

// ID is the number by which the kernel knows a control group.
func (c *Cgroups) ID(path string) uint64 {
	c.t.Helper()
	var stat unix.Stat_t
	if err := unix.Stat(c.Dir(path), &stat); err != nil {
		c.t.Fatalf("read id of control group %s: %v", path, err)
	}
	return stat.Ino
}

// Make makes a control group, and those above it that do not exist.
func (c *Cgroups) Make(path string) {
	c.t.Helper()
	for i := 1; i <= len(path); i++ {
		if i < len(path) && path[i] != '/' {
			continue
		}
		above := path[:i]
		err := os.Mkdir(c.Dir(above), 0o755)
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err != nil {
			c.t.Fatalf("make control group: %v", err)
		}
		c.t.Cleanup(func() { c.Remove(above) })
	}
}

// Remove removes a control group once nothing is in it any more. One that does not exist is no error.
func (c *Cgroups) Remove(path string) {
	c.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := os.Remove(c.Dir(path))
		if err == nil || errors.Is(err, os.ErrNotExist) {
			return
		}
		// A process that has ended leaves its group a little later.
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			c.t.Errorf("remove control group: %v", err)
			return
		}
	}
}

// Enter moves this process. It is back where it was before anything that was made until then goes.
func (c *Cgroups) Enter(path string) {
	c.t.Helper()
	c.t.Cleanup(c.Leave)
	c.Move(path, os.Getpid())
}

// Leave moves this process back to where it was.
func (c *Cgroups) Leave() {
	c.t.Helper()
	c.Move(c.home, os.Getpid())
}

// Move moves a process.
func (c *Cgroups) Move(path string, pid int) {
	c.t.Helper()
	if err := os.WriteFile(filepath.Join(c.Dir(path), "cgroup.procs"), fmt.Append(nil, pid), 0); err != nil {
		c.t.Fatalf("move process %d to control group %s: %v", pid, path, err)
	}
}
