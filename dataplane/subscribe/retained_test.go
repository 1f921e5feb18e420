package subscribe_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/dataplane/subscribe"
)

func TestRetainedRuleSets(t *testing.T) {
	disk, dir := newDisk(t)
	expect := func(when string, want ...*ruleset.RuleSet) {
		t.Helper()
		got, err := disk.Retained()
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(want) {
			t.Fatalf("%s: got %d rule sets, want %d", when, len(got), len(want))
		}
		for i := range want {
			if got[i].ID() != want[i].ID() {
				t.Errorf("%s: rule set %d is another one", when, i)
			}
		}
	}
	retain := func() {
		t.Helper()
		if err := disk.Retain(); err != nil {
			t.Fatal(err)
		}
	}
	saved := func(number uint64) *ruleset.RuleSet {
		t.Helper()
		revision := revision(number, int(number))
		save(t, disk, revision)
		return revision.Rules
	}
	if err := disk.Retain(); err == nil {
		t.Error("Retain of nothing succeeded")
	}
	if err := disk.RetainAny(); err != nil {
		t.Fatal(err)
	}
	expect("nothing saved", &ruleset.RuleSet{})
	if err := disk.Release(); err != nil {
		t.Fatal(err)
	}
	first := saved(1)
	retain()
	second := saved(2)
	expect("after one", first)
	retain()
	saved(3)
	expect("after two", first, second)
	if err := os.WriteFile(filepath.Join(dir, "rule-set.before.1"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	expect("one cannot be read", &ruleset.RuleSet{}, second)
	for range 20 {
		retain()
	}
	if got, err := disk.Retained(); err != nil || len(got) > 16 || len(got[0].Policies) != 0 {
		t.Errorf("too many: got %d, %v, want at most 16, the first of which allows everything", len(got), err)
	}
	if err := disk.Release(); err != nil {
		t.Fatal(err)
	}
	expect("released")
	if saved, err := disk.Load(); err != nil || saved.Number != 3 {
		t.Errorf("what is saved: got %v, %v, want revision 3", saved, err)
	}
	retain()
	removed, err := subscribe.RemoveDisk(dir)
	if left, _ := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("removed %v, %v, and left %v", removed, err, left)
	}
}
