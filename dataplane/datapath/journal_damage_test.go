package datapath

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/dataplane/lower"
	"github.com/nameward/nameward/dataplane/observe"
)

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
