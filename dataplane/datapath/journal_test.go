package datapath

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/dataplane/lower"
	"github.com/nameward/nameward/dataplane/observe"
)

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
