package e2e_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/e2e/lab"
)

// TestFullDisk: an agent that starts with no room on its disk, after a reboot, and without its server,
// enforces what is on that disk.
func TestFullDisk(t *testing.T) {
	l := newLab(t)
	f := &fleet{Lab: l, t: t}
	state := filepath.Join(l.Dir, "agent")
	f.must(os.Mkdir(state, 0o700))
	f.must(unix.Mount("tmpfs", state, "tmpfs", 0, "size=8m,mode=700"))
	t.Cleanup(func() { _ = unix.Unmount(state, unix.MNT_DETACH) })
	f.startServer()
	conn, err := f.DialServer()
	f.must(err)
	t.Cleanup(func() { _ = conn.Close() })
	f.conn = conn
	f.startAgent()
	f.put(clientPolicy("api.example"))
	f.must(errors.Join(f.agent.Stop(), f.server.Stop(), l.ForgetKernelState(t.Context())))
	fill, err := os.Create(filepath.Join(state, "others"))
	f.must(err)
	for err == nil {
		_, err = fill.Write(make([]byte, 4096))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	f.must(fill.Close())
	f.agent, err = l.StartAgentAlone(t.Context())
	f.must(err)
	f.expectOpen(t, lab.ResolverV4, "api.example")
	f.expectRefused(t, lab.ResolverV6, "evil.example")
}
