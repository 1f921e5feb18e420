package datapath

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/bpf/bpftest"
	"github.com/nameward/nameward/dataplane/lower"
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

func TestJournalKeepsMappings(t *testing.T) {
	dir := t.TempDir()
	clock, err := readClock()
	if err != nil {
		t.Fatal(err)
	}
	j, err := openJournal(dir, now(t), discard)
	if err != nil {
		t.Fatal(err)
	}
	first := testAnswer(t, clock)
	first.Question = 1 // A
	again := testAnswer(t, clock)
	again.LearnedAt = clock.now.Add(time.Second)
	again.ExpiresAt = clock.now.Add(time.Second) // does not shorten
	for _, a := range []learned{first, again} {
		if err := j.put([]learned{a}, clock); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.close(now(t)); err != nil {
		t.Fatal(err)
	}
	if j, err = openJournal(dir, now(t), discard); err != nil {
		t.Fatal(err)
	}
	defer j.close(now(t)) //nolint:errcheck // ends with the test
	got, _, err := j.mappings(clock)
	if err != nil {
		t.Fatal(err)
	}
	mapping := observe.Mapping{
		Domain: first.Names[0], Chain: first.Names[1:], Address: first.Addresses[0].Address, Client: first.Client,
		FirstSeen: first.LearnedAt, LastSeen: again.LearnedAt, AnsweredAt: first.LearnedAt, ExpiresAt: first.ExpiresAt,
	}
	short := mapping
	short.Chain, short.Address = nil, first.Addresses[1].Address
	if diff := cmp.Diff([]observe.Mapping{mapping, short}, got, cmp.Comparer(func(a, b domain.Name) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("mappings (-want +got):\n%s", diff)
	}
	at := func(t time.Time) moment { return moment{t, clock.toBoot(t)} }
	if err := j.forget(at(first.ExpiresAt), 2); err != nil {
		t.Fatal(err)
	}
	if got, _, err := j.mappings(clock); err != nil || len(got) != 2 || j.forgot() {
		t.Errorf("expired, but there is room: got %v, %v, forgot %t, want both", got, err, j.forgot())
	}
	if err := j.forget(at(first.ExpiresAt.Add(-1)), 1); err != nil {
		t.Fatal(err)
	}
	if got, _, err := j.mappings(clock); err != nil || len(got) != 1 {
		t.Errorf("room for one of two that live: got %v, %v, want one", got, err)
	}
	if err := j.forget(at(first.ExpiresAt), 0); err != nil {
		t.Fatal(err)
	}
	if !j.forgot() {
		t.Error("that lines were dropped is not known")
	}
	if got, _, err := j.mappings(clock); err != nil || len(got) != 0 {
		t.Errorf("after they expired: got %v, %v, want none", got, err)
	}
}

func TestJournalKeepsFormerAliases(t *testing.T) {
	clock, err := readClock()
	if err != nil {
		t.Fatal(err)
	}
	j, err := openJournal(t.TempDir(), now(t), discard)
	if err != nil {
		t.Fatal(err)
	}
	defer j.close(now(t)) //nolint:errcheck // ends with the test
	for _, alias := range []string{"one.test", "two.test", "three.test", "two.test"} {
		a := testAnswer(t, clock)
		a.Names[1], a.Addresses = parseName(t, alias), a.Addresses[:1]
		if err := j.put([]learned{a}, clock); err != nil {
			t.Fatal(err)
		}
	}
	mappings, former, err := j.mappings(clock)
	if err != nil || len(mappings) != 1 || len(mappings[0].Chain) != 1 || mappings[0].Chain[0].String() != "two.test" {
		t.Errorf("mappings: got %v, %v, want one by two.test", mappings, err)
	}
	var names []string
	for _, f := range former {
		names = append(names, f.Name.String())
	}
	if diff := cmp.Diff([]string{"one.test", "three.test"}, names); diff != "" {
		t.Errorf("names of earlier chains (-want +got):\n%s", diff)
	}
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

// A mapping lives over a reboot for as long as it would have without, by the wall clock; where that cannot
// be right, nothing is known to live.
func TestMappingsLiveOverAReboot(t *testing.T) {
	for _, test := range []struct {
		fact string
		away time.Duration // by the wall clock
		left time.Duration // of the mapping's minute; 0: it is not there
	}{
		{"a short one", 20 * time.Second, 40 * time.Second},
		{"none at all", 0, time.Minute},
		{"one that outlasts the mapping", time.Minute, 0},
		{"a wall clock that is far ahead", 10 * time.Hour, 0},
		{"a wall clock that is behind", -time.Second, 0},
		{"a wall clock that is far behind", -10 * time.Hour, 0},
	} {
		t.Run(test.fact, func(t *testing.T) {
			dir, before := t.TempDir(), now(t)
			j, err := openJournal(dir, before, discard)
			if err != nil {
				t.Fatal(err)
			}
			if err := j.put([]learned{testAnswer(t, before)}, before); err != nil {
				t.Fatal(err)
			}
			if err := j.putMemory(lower.Memory{NextSelector: 7}); err != nil {
				t.Fatal(err)
			}
			reboot(t, j)
			if err := j.close(before); err != nil {
				t.Fatal(err)
			}
			after := afterBoot(before, test.away)
			if j, err = openJournal(dir, after, discard); err != nil {
				t.Fatal(err)
			}
			defer j.close(after) //nolint:errcheck // ends with the test
			got, _, err := j.mappings(after)
			if err != nil {
				t.Fatal(err)
			}
			if want := test.left > 0; (len(got) == 2) != want || !want && len(got) > 0 {
				t.Fatalf("mappings: got %v, want them: %t", got, want)
			}
			for _, m := range got {
				if left := m.ExpiresAt.Sub(after.now); left != test.left {
					t.Errorf("lives for %v, want %v", left, test.left)
				}
				if seen := after.now.Sub(m.FirstSeen); seen != test.away || !m.LastSeen.Equal(m.FirstSeen) {
					t.Errorf("was seen %v ago, want %v", seen, test.away)
				}
				if len(m.Chain) == 0 && m.Address != netip.MustParseAddr("192.0.2.2") {
					t.Errorf("lost its chain: %v", m)
				}
			}
			if got, err := j.memory(); err != nil || got.NextSelector != 0 || j.forgot() {
				t.Errorf("match sets: got %v, %v, forgot %t, want none", got, err, j.forgot())
			}
			// And once more, with times before the boot in the file.
			reboot(t, j)
			if err := j.close(after); err != nil {
				t.Fatal(err)
			}
			again := afterBoot(after, 10*time.Second)
			if j, err = openJournal(dir, again, discard); err != nil {
				t.Fatal(err)
			}
			defer j.close(again) //nolint:errcheck // ends with the test
			got, _, err = j.mappings(again)
			if want := test.left > 10*time.Second; err != nil || (len(got) == 2) != want {
				t.Fatalf("after another reboot: got %v, %v, want them: %t", got, err, want)
			}
			for _, m := range got {
				if left := m.ExpiresAt.Sub(again.now); left != test.left-10*time.Second {
					t.Errorf("after another reboot: lives for %v, want %v", left, test.left-10*time.Second)
				}
			}
		})
	}
}

// A step of the wall clock moves no expiry while the node runs, nor at a restart of the agent.
func TestJournalKeepsToTheBootClock(t *testing.T) {
	for _, step := range []time.Duration{5 * time.Hour, -5 * time.Hour} {
		dir, before := t.TempDir(), now(t)
		j, err := openJournal(dir, before, discard)
		if err != nil {
			t.Fatal(err)
		}
		if err := j.put([]learned{testAnswer(t, before)}, before); err != nil {
			t.Fatal(err)
		}
		if err := j.close(before); err != nil {
			t.Fatal(err)
		}
		after := clock{now: before.now.Add(step), boot: before.boot + uint64(20*time.Second)}
		if j, err = openJournal(dir, after, discard); err != nil {
			t.Fatal(err)
		}
		got, _, err := j.mappings(after)
		if err != nil || len(got) != 2 || got[0].ExpiresAt.Sub(after.now) != 40*time.Second {
			t.Errorf("step of %v: got %v, %v, want 40 s left", step, got, err)
		}
		if err := j.close(after); err != nil {
			t.Fatal(err)
		}
	}
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

// makeJournal returns the content of a journal of two hundred names.
func makeJournal(t *testing.T, c clock) []byte {
	t.Helper()
	dir := t.TempDir()
	j, err := openJournal(dir, c, discard)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range slices.Collect(slices.Chunk(manyAnswers(t, c, 200), 20)) {
		if err := j.put(part, c); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(j.putMemory(lower.Memory{NextSelector: 7}), j.close(c)); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(dir, journalFile))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// openDamaged opens a journal with such content, and expects what was written, whole, or nothing and the
// file set aside.
func openDamaged(t *testing.T, dir, what string, c clock, content []byte) (aside bool) {
	t.Helper()
	path := filepath.Join(dir, journalFile)
	if err := errors.Join(os.RemoveAll(path), os.RemoveAll(path+asideSuffix), os.WriteFile(path, content, 0o600)); err != nil {
		t.Fatal(err)
	}
	j, err := openJournal(dir, c, discard)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	got, _, err := j.mappings(c)
	memory, memoryErr := j.memory()
	_, statErr := os.Stat(path + asideSuffix)
	aside = statErr == nil
	switch {
	case err != nil || memoryErr != nil:
		t.Errorf("%s: %v, %v", what, err, memoryErr)
	case aside && (len(got) > 0 || memory.NextSelector != 0 || !j.forgot()):
		t.Errorf("%s: set aside, but %d mappings are known, match sets %v, forgot %t", what, len(got), memory, j.forgot())
	case !aside && (len(got) != 400 || memory.NextSelector != 7):
		t.Errorf("%s: not set aside, but %d mappings are known, match sets %v", what, len(got), memory)
	}
	for _, m := range got {
		if m.Address != netip.MustParseAddr("192.0.2.1") && m.Address != netip.MustParseAddr("192.0.2.2") || !m.ExpiresAt.Equal(c.now.Add(time.Minute)) {
			t.Errorf("%s: a mapping that nobody learned: %v", what, m)
		}
	}
	// Whatever it was, it works now.
	if err := j.put(manyAnswers(t, c, 300), c); err != nil && j.db != nil {
		t.Errorf("%s: put: %v", what, err)
	}
	if err := j.close(c); err != nil {
		t.Errorf("%s: close: %v", what, err)
	}
	return aside
}

// A journal is used whole or not at all, wherever it is cut, and whichever bit of it is another.
func TestDamagedJournalIsNeverHalfUsed(t *testing.T) {
	c, dir := now(t), tmpfs(t, "64m") // many files are made, and synced
	content := makeJournal(t, c)
	if openDamaged(t, dir, "as it was", c, content) {
		t.Fatal("a good journal was set aside")
	}
	for at := 0; at < len(content); at += 1371 {
		openDamaged(t, dir, fmt.Sprintf("cut at %d", at), c, content[:at])
	}
	aside := 0
	flip := func(at, bit int) {
		damaged := bytes.Clone(content)
		damaged[at] ^= 1 << bit
		if openDamaged(t, dir, fmt.Sprintf("bit %d of byte %d", bit, at), c, damaged) {
			aside++
		}
	}
	for page := 0; page < len(content)/os.Getpagesize(); page++ {
		for at := page % 3; at < 40; at += 3 { // heads, and the first elements
			flip(page*os.Getpagesize()+at, (page+at)%8)
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		flip(random.IntN(len(content)), random.IntN(8))
	}
	if aside == 0 {
		t.Error("no damage was noticed")
	}
}

func TestCorruptJournalIsSetAside(t *testing.T) {
	content := makeJournal(t, now(t))
	for what, put := range map[string]func(path string) error{
		"no journal at all": func(path string) error { return os.WriteFile(path, []byte("not a journal"), 0o600) },
		"an empty file":     func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"both heads gone": func(path string) error {
			return os.WriteFile(path, append(make([]byte, 8192), content[8192:]...), 0o600)
		},
		"pages gone": func(path string) error {
			return os.WriteFile(path, append(bytes.Clone(content[:8192]), make([]byte, len(content)-8192)...), 0o600)
		},
		"a directory": func(path string) error { return os.MkdirAll(filepath.Join(path, "full"), 0o700) },
		"a pipe":      func(path string) error { return unix.Mkfifo(path, 0o600) },
		"writable by others": func(path string) error {
			return errors.Join(os.WriteFile(path, content, 0o600), os.Chmod(path, 0o666))
		},
		"a symbolic link": func(path string) error {
			return errors.Join(os.WriteFile(path+"-target", content, 0o600), os.Symlink(path+"-target", path))
		},
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, journalFile)
			for range 2 { // what is set aside replaces what was
				if err := errors.Join(os.RemoveAll(path), put(path)); err != nil {
					t.Fatal(err)
				}
				j, err := openJournal(dir, now(t), discard)
				if err != nil {
					t.Fatal(err)
				}
				if got, _, err := j.mappings(now(t)); err != nil || len(got) > 0 || !j.forgot() {
					t.Errorf("got %v, %v, forgot %t, want an empty one that knows of it", got, err, j.forgot())
				}
				if _, err := os.Lstat(path + asideSuffix); err != nil {
					t.Errorf("the damaged file is not kept: %v", err)
				}
				if err := j.close(now(t)); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := RemoveJournal(dir); err != nil {
				t.Fatal(err)
			}
			if left, _ := filepath.Glob(path + asideSuffix); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// A file that somebody cuts short while it is in use ends no agent.
func TestJournalCutWhileInUse(t *testing.T) {
	dir, c := t.TempDir(), now(t)
	if err := os.WriteFile(filepath.Join(dir, journalFile), makeJournal(t, c), 0o600); err != nil {
		t.Fatal(err)
	}
	j, err := openJournal(dir, c, discard)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, journalFile), 9000); err != nil {
		t.Fatal(err)
	}
	if err := j.put(manyAnswers(t, c, 200), c); err == nil {
		t.Error("put: got no error")
	}
	if j.fault.Load() == nil || j.faults.Load() == 0 {
		t.Error("nobody is told")
	}
	mendAs(t, j, c, 200)
}

// mendAs mends a journal by a table of so many answers, and expects that the next process knows them.
func mendAs(t *testing.T, j *journal, c clock, names int) {
	t.Helper()
	table := observe.NewTable(0, 0)
	for _, a := range manyAnswers(t, c, names) {
		table.Record(a.Answer)
	}
	j.mend(c, func() lower.Memory { return lower.Memory{NextSelector: 9} }, func() []observe.Mapping { return table.Live(c.now, nil) })
	if fault := j.fault.Load(); fault != nil {
		t.Fatalf("not mended: %s", *fault)
	}
	if err := j.close(c); err != nil {
		t.Fatal(err)
	}
	again, err := openJournal(filepath.Dir(j.path), c, discard)
	if err != nil {
		t.Fatal(err)
	}
	defer again.close(c) //nolint:errcheck // ends with the test
	got, _, err := again.mappings(c)
	if memory, _ := again.memory(); err != nil || len(got) != 2*names || memory.NextSelector != 9 {
		t.Errorf("the next process knows %d mappings, %v, %v, want %d", len(got), memory, err, 2*names)
	}
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

// Whatever room the disk has: the agent goes on, what is lost is told, and once there is room nothing is.
func TestJournalOnAFullDisk(t *testing.T) {
	c := now(t)
	content := makeJournal(t, c)
	fill := func(t *testing.T, dir string, room int) string {
		t.Helper()
		file, err := os.Create(filepath.Join(dir, "fill"))
		if err != nil {
			t.Fatal(err)
		}
		for page := make([]byte, os.Getpagesize()); err == nil; {
			_, err = file.Write(page)
		}
		info, err := file.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(file.Truncate(info.Size()-int64(room*os.Getpagesize())), file.Close()); err != nil {
			t.Fatal(err)
		}
		return file.Name()
	}
	faults := 0
	for _, known := range []bool{false, true} {
		for room := range 10 {
			t.Run(fmt.Sprintf("known %t, room for %d pages", known, room), func(t *testing.T) {
				dir := tmpfs(t, "1m")
				if known {
					if err := os.WriteFile(filepath.Join(dir, journalFile), content, 0o600); err != nil {
						t.Fatal(err)
					}
				}
				filled := fill(t, dir, room)
				j, err := openJournal(dir, c, discard)
				if err != nil {
					t.Fatal(err)
				}
				if got, _, err := j.mappings(c); known && (err != nil || len(got) != 400) {
					t.Errorf("got %d mappings, %v, want all", len(got), err)
				}
				for _, a := range manyAnswers(t, c, 200) {
					if err := j.put([]learned{a}, c); err != nil {
						faults++
					}
				}
				if aside, _ := filepath.Glob(filepath.Join(dir, "*"+asideSuffix)); len(aside) > 0 {
					t.Errorf("a good journal was set aside: %v", aside)
				}
				if err := os.Remove(filled); err != nil {
					t.Fatal(err)
				}
				j.lacks = true
				mendAs(t, j, c, 200)
			})
		}
	}
	if faults == 0 {
		t.Error("the disk never was full")
	}
}

func TestJournalHasOneHolder(t *testing.T) {
	dir := t.TempDir()
	j, err := openJournal(dir, now(t), discard)
	if err != nil {
		t.Fatal(err)
	}
	defer j.close(now(t)) //nolint:errcheck // ends with the test
	if _, err := openJournal(dir, now(t), discard); err == nil {
		t.Error("a second agent on the same state directory: got no error")
	}
}

// TestJournalThatIsNotWritten: what cannot be written down is learned all the same, and said, until it can be.
func TestJournalThatIsNotWritten(t *testing.T) {
	f := newFixture(t)
	f.apply(t, hostRules(t, allow("www.example.com")))
	db := f.journal.db
	if err := f.Fault(); err != nil {
		t.Fatal(err)
	}
	closed, err := bbolt.Open(filepath.Join(t.TempDir(), "mappings.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil { // and so takes nothing
		t.Fatal(err)
	}
	f.journal.db = closed
	f.resolve(t, "www.example.com", 60, "www.example.com. IN A 198.51.100.1")
	if err := f.locked(f.drain); err != nil {
		t.Fatal(err)
	}
	if err := f.Fault(); err == nil || !strings.Contains(err.Error(), "write journal") {
		t.Errorf("fault %v, want that the journal is not written", err)
	}
	if !f.opens(t, "198.51.100.1:443") {
		t.Error("not open without a journal")
	}
	f.journal.db = db
	if err := f.mendJournal(now(t)); err != nil {
		t.Fatal(err)
	}
	if err := f.Fault(); err != nil {
		t.Errorf("still a fault: %v", err)
	}
}
