package subscribe_test

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/dataplane/enforce"
	"github.com/nameward/nameward/dataplane/subscribe"
)

func revision(number uint64, policies int) *enforce.Revision {
	return &enforce.Revision{StoreID: storeID, Number: number, Rules: rules(policies), ID: rules(policies).ID()}
}

func newDisk(t *testing.T) (*subscribe.Disk, string) {
	dir := t.TempDir()
	return subscribe.NewDisk(dir, slog.New(slog.DiscardHandler)), dir
}

func load(t *testing.T, disk *subscribe.Disk) *enforce.Revision {
	t.Helper()
	got, err := disk.Load()
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func save(t *testing.T, disk *subscribe.Disk, r *enforce.Revision) {
	t.Helper()
	if err := disk.Save(r); err != nil {
		t.Fatal(err)
	}
}

func TestDiskHoldsTheLastSaved(t *testing.T) {
	disk, dir := newDisk(t)
	if got := load(t, disk); got != nil {
		t.Errorf("empty directory: got %v, want nothing", got)
	}
	for _, want := range []*enforce.Revision{revision(1, 1), revision(2, 0), revision(3, 9)} {
		save(t, disk, want)
		if diff := cmp.Diff(want, load(t, disk), cmpopts.EquateEmpty(), cmp.Comparer(func(a, b domain.Pattern) bool { return a == b }),
			cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
			t.Errorf("loaded (-want +got): %s", diff)
		}
	}
	info, err := os.Stat(filepath.Join(dir, "rule-set"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the file: %v, %v; want 0600", info.Mode(), err)
	}
}

func TestDamagedFileIsSetAside(t *testing.T) {
	disk, dir := newDisk(t)
	save(t, disk, revision(1, 2))
	path := filepath.Join(dir, "rule-set")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	check := func(t *testing.T, what string, at int, content []byte) {
		t.Helper()
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := load(t, disk); got != nil {
			t.Errorf("%s at byte %d: got %v, want nothing", what, at, got)
		}
		if aside, err := os.ReadFile(path + ".bad"); err != nil || string(aside) != string(content) {
			t.Errorf("%s at byte %d: not set aside: %v", what, at, err)
		}
		if got := load(t, disk); got != nil {
			t.Errorf("%s at byte %d: loaded at the second try", what, at)
		}
	}
	for i := range good {
		check(t, "cut", i, good[:i])
		altered := append([]byte(nil), good...)
		altered[i] ^= 1
		check(t, "altered", i, altered)
	}
}

func TestUnfinishedFileDoesNotCount(t *testing.T) {
	disk, dir := newDisk(t)
	save(t, disk, revision(1, 1))
	if err := os.WriteFile(filepath.Join(dir, "rule-set.new"), []byte("nameward"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := load(t, disk); got == nil || got.Number != 1 {
		t.Errorf("got %v, want revision 1", got)
	}
	removed, err := subscribe.RemoveDisk(dir)
	if err != nil || len(removed) != 2 {
		t.Errorf("RemoveDisk: %v, %v; want the rule set and the unfinished one", removed, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

func TestSaveFailsWithoutDirectory(t *testing.T) {
	disk := subscribe.NewDisk(filepath.Join(t.TempDir(), "gone"), slog.New(slog.DiscardHandler))
	if err := disk.Save(revision(1, 1)); err == nil {
		t.Error("Save succeeded")
	}
}
