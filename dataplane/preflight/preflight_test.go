package preflight

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func expect(t *testing.T, got Requirement, level Level, detail string) {
	t.Helper()
	if got.Level != level || !strings.Contains(got.Detail, detail) {
		t.Errorf("got %+v, want level %s and %q", got, level, detail)
	}
	if (got.Remedy == "") != (level == OK) {
		t.Errorf("%+v: a remedy is for what is not well, and for nothing else", got)
	}
}

func TestCapabilitiesAreNamed(t *testing.T) {
	needed := []capability{
		{"CAP_BPF", unix.CAP_BPF, true, "loads"}, {"CAP_NET_ADMIN", unix.CAP_NET_ADMIN, false, "writes"},
	}
	set := func(capabilities ...int) (bits uint64) {
		for _, c := range capabilities {
			bits |= 1 << c
		}
		return bits
	}
	for _, c := range []struct {
		has    uint64
		level  Level
		detail string
	}{
		{set(unix.CAP_BPF, unix.CAP_NET_ADMIN), OK, "CAP_BPF, CAP_NET_ADMIN"},
		{set(unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN), OK, "CAP_BPF"},
		{set(unix.CAP_NET_ADMIN), Failed, "CAP_BPF is missing: it loads"},
		{set(unix.CAP_SYS_ADMIN), Failed, "CAP_NET_ADMIN is missing: it writes"},
		{0, Failed, "CAP_BPF is missing: it loads\nCAP_NET_ADMIN"},
	} {
		expect(t, judgeCapabilities("capabilities", c.has, needed), c.level, c.detail)
	}
}

func TestClock(t *testing.T) {
	expect(t, Clock(), OK, "T")
	expect(t, judgeWallClock("clock", time.Unix(3600, 0)), Warning, "1970-01-01")
	expect(t, judgeSynchronised(0, nil), OK, "")
	expect(t, judgeSynchronised(unix.STA_UNSYNC, nil), Warning, "nobody")
	expect(t, judgeSynchronised(0, unix.EPERM), Warning, "not known")
}

func TestStateDir(t *testing.T) {
	dir := t.TempDir()
	absent := filepath.Join(dir, "a", "b")
	expect(t, StateDir(absent), OK, absent)
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	open := filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o755); err != nil {
		t.Fatal(err)
	}
	expect(t, StateDir(open), Warning, "mode 0755")
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, StateDir(file), Failed, "no directory")
	expect(t, judgeRoom("state directory", dir, leastBytes-1), Failed, "KiB")
	expect(t, judgeRoom("state directory", dir, leastBytes), Warning, "KiB")
	expect(t, judgeRoom("state directory", dir, ampleBytes), OK, "KiB")
}

// TestStateDirOnDisks tries file systems that are full, and that cannot be written.
func TestStateDirOnDisks(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("REQUIRE_PRIVILEGED") == "1" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	dir := t.TempDir()
	mount := func(flags uintptr, options string) {
		if err := unix.Mount("tmpfs", dir, "tmpfs", flags, options); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	}
	mount(0, "size=64k,mode=700")
	expect(t, StateDir(dir), Failed, "64 KiB are free")
	if err := os.WriteFile(filepath.Join(dir, "all"), make([]byte, 64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, StateDir(dir), Failed, unix.ENOSPC.Error())
	mount(unix.MS_RDONLY, "")
	expect(t, StateDir(filepath.Join(dir, "state")), Failed, unix.EROFS.Error())
}

// answerer answers on one port: over UDP, over TCP, both or none.
func answerer(t *testing.T, udp, tcp bool) netip.AddrPort {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().(*net.TCPAddr).AddrPort()
	packets, err := net.ListenPacket("udp", address.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close(); packets.Close() })
	if !udp {
		packets.Close()
	}
	if !tcp {
		listener.Close()
	}
	go func() {
		message := make([]byte, 512)
		for {
			n, from, err := packets.ReadFrom(message)
			if err != nil {
				return
			}
			message[2] |= 0x80
			_, _ = packets.WriteTo(message[:n], from)
		}
	}()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			message := make([]byte, 2+len(rootQuestion))
			if _, err := io.ReadFull(conn, message); err == nil {
				message[4] |= 0x80
				_, _ = conn.Write(message)
			}
			conn.Close()
		}
	}()
	return address
}

func TestReachable(t *testing.T) {
	resolvers := []netip.AddrPort{answerer(t, true, true), answerer(t, true, false), answerer(t, false, true), answerer(t, false, false)}
	found := Reachable(t.Context(), resolvers)
	expect(t, found[0], OK, "UDP and TCP")
	expect(t, found[1], Warning, "UDP alone; tcp")
	expect(t, found[2], Warning, "TCP alone; udp")
	expect(t, found[3], Warning, "tcp: connect")
	for i, r := range found {
		if r.Name != fmt.Sprintf("resolver %s", resolvers[i]) {
			t.Errorf("resolver %d is called %q", i, r.Name)
		}
	}
}

func TestJudge(t *testing.T) {
	expect(t, Judge("n", "d", nil, "r"), OK, "d")
	expect(t, Judge("n", "d", errors.New("fault"), "r"), Failed, "fault")
}
