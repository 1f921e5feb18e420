package datapath

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/dataplane/lower"
	"github.com/nameward/nameward/dataplane/observe"
)

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
	j, err := openJournal(dir, discard)
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
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	if j, err = openJournal(dir, discard); err != nil {
		t.Fatal(err)
	}
	defer j.close() //nolint:errcheck // ends with the test
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
	if err := j.forget(clock.toBoot(first.ExpiresAt), 2); err != nil {
		t.Fatal(err)
	}
	if got, _, err := j.mappings(clock); err != nil || len(got) != 2 || j.forgot() {
		t.Errorf("expired, but there is room: got %v, %v, forgot %t, want both", got, err, j.forgot())
	}
	if err := j.forget(clock.toBoot(first.ExpiresAt)-1, 0); err != nil {
		t.Fatal(err)
	}
	if got, _, err := j.mappings(clock); err != nil || len(got) != 2 || j.forgot() {
		t.Errorf("no room, but they live: got %v, %v, forgot %t, want both", got, err, j.forgot())
	}
	if err := j.forget(clock.toBoot(first.ExpiresAt), 0); err != nil {
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
	j, err := openJournal(t.TempDir(), discard)
	if err != nil {
		t.Fatal(err)
	}
	defer j.close() //nolint:errcheck // ends with the test
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

func TestJournalOfAnotherBootIsEmptied(t *testing.T) {
	dir := t.TempDir()
	clock, err := readClock()
	if err != nil {
		t.Fatal(err)
	}
	j, err := openJournal(dir, discard)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.put([]learned{testAnswer(t, clock)}, clock); err != nil {
		t.Fatal(err)
	}
	if err := j.putMemory(lower.Memory{NextSelector: 7}); err != nil {
		t.Fatal(err)
	}
	if err := j.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(metaBucket).Put(bootKey, []byte("another")) }); err != nil {
		t.Fatal(err)
	}
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	if j, err = openJournal(dir, discard); err != nil {
		t.Fatal(err)
	}
	defer j.close() //nolint:errcheck // ends with the test
	if got, _, err := j.mappings(clock); err != nil || len(got) != 0 {
		t.Errorf("mappings: got %v, %v, want none", got, err)
	}
	if got, err := j.memory(); err != nil || got.NextSelector != 0 {
		t.Errorf("match sets: got %v, %v, want none", got, err)
	}
}

func TestCorruptJournalIsSetAside(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"no journal at all": func([]byte) []byte { return []byte("not a journal") },
		"both heads gone":   func(b []byte) []byte { clear(b[:8192]); return b },
		"pages gone":        func(b []byte) []byte { clear(b[8192:]); return b },
		"cut short":         func(b []byte) []byte { return b[:9000] },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			j, err := openJournal(dir, discard)
			if err != nil {
				t.Fatal(err)
			}
			if err := j.close(); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, journalFile)
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, damage(content), 0o600); err != nil {
				t.Fatal(err)
			}
			j, err = openJournal(dir, discard)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(path + ".corrupt"); err != nil {
				t.Errorf("the damaged file is not kept: %v", err)
			}
			if err := j.close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestJournalHasOneHolder(t *testing.T) {
	dir := t.TempDir()
	j, err := openJournal(dir, discard)
	if err != nil {
		t.Fatal(err)
	}
	defer j.close() //nolint:errcheck // ends with the test
	if _, err := openJournal(dir, discard); err == nil {
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
	f.resolve(t, "www.example.com", 60, "www.example.com. IN A 198.51.100.2")
	if err := f.locked(f.drain); err != nil {
		t.Fatal(err)
	}
	if err := f.Fault(); err != nil {
		t.Errorf("still a fault: %v", err)
	}
}
