package datapath

import (
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/bpf/bpftest"
	"github.com/nameward/nameward/dataplane/observe"
)

// moment is a clock, where a variable has its name.
type moment = clock

func now(t testing.TB) clock {
	t.Helper()
	c, err := readClock()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var discard = slog.New(slog.DiscardHandler)

func parseName(t testing.TB, s string) domain.Name {
	t.Helper()
	name, err := domain.ParseName(s)
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func testAnswer(t testing.TB, c clock) learned {
	return learned{Answer: observe.Answer{
		Names: []domain.Name{parseName(t, "www.example.com"), parseName(t, "cdn.example.net")},
		Addresses: []observe.Address{
			{Address: netip.MustParseAddr("192.0.2.1"), Names: 2},
			{Address: netip.MustParseAddr("192.0.2.2"), Names: 1},
		},
		Client:    netip.MustParseAddr("fd00::7"),
		LearnedAt: c.now,
		ExpiresAt: c.now.Add(time.Minute),
	}}
}

// reboot makes a journal one of another boot.
func reboot(t testing.TB, j *journal) {
	t.Helper()
	if err := j.db.Update(func(tx *bbolt.Tx) error { return putMeta(tx, bootKey, []byte("another")) }); err != nil {
		t.Fatal(err)
	}
}

// afterBoot is the clock when the node was away for some time by its wall clock, and began a second ago.
func afterBoot(c clock, away time.Duration) clock {
	return clock{now: c.now.Add(away), boot: uint64(time.Second)}
}

// manyAnswers fill pages of every kind.
func manyAnswers(t testing.TB, c clock, n int) (answers []learned) {
	t.Helper()
	for i := range n {
		a := testAnswer(t, c)
		a.Names[0] = parseName(t, fmt.Sprintf("n%04d.example.com", i))
		answers = append(answers, a)
	}
	return answers
}

// tmpfs returns a directory of such a size.
func tmpfs(t *testing.T, size string) string {
	t.Helper()
	bpftest.RequirePrivileged(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}
