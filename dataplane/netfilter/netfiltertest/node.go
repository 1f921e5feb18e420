// Package netfiltertest gives a test a machine of its own: network and mount namespaces in which it may
// write iptables rules and pin programs.
package netfiltertest

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/bpf/bpftest"
)

// EnterNode moves the calling test into namespaces of its own, with a bpffs, and returns where that
// is. Goroutines that it starts stay outside; processes do not. All of it ends with the test's
// goroutine, whose thread is never unlocked.
func EnterNode(t testing.TB) (bpfDir string) {
	t.Helper()
	bpftest.RequirePrivileged(t)
	bpfDir = t.TempDir()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("bpf", bpfDir, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(bpfDir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return bpfDir
}
