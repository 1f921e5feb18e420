package subscribe_test

import (
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/bpf/bpftest"
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
		if got, err := disk.Load(); got != nil || err == nil {
			t.Errorf("%s at byte %d: got %v, %v, want an error alone", what, at, got, err)
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

// In the place of each file there may be anything.
func TestWhatIsNotTheAgentsIsSetAside(t *testing.T) {
	good := func(t *testing.T, path string) []byte {
		t.Helper()
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	for what, put := range map[string]func(path string, content []byte) error{
		"a directory":     func(path string, _ []byte) error { return os.MkdirAll(filepath.Join(path, "full"), 0o700) },
		"a pipe":          func(path string, _ []byte) error { return syscall.Mkfifo(path, 0o600) },
		"a symbolic link": func(path string, c []byte) error { return linkTo(path, c) },
		"writable by others": func(path string, c []byte) error {
			return errors.Join(os.WriteFile(path, c, 0o600), os.Chmod(path, 0o622))
		},
		"of another user": func(path string, c []byte) error {
			return errors.Join(os.WriteFile(path, c, 0o600), os.Chown(path, 12345, 0))
		},
		"nothing in the file": func(path string, _ []byte) error { return os.WriteFile(path, nil, 0o600) },
	} {
		t.Run(what, func(t *testing.T) {
			disk, dir := newDisk(t)
			if what == "of another user" && os.Geteuid() != 0 {
				t.Skip("only root gives files away")
			}
			path := filepath.Join(dir, "rule-set")
			// Twice: what is set aside replaces what was.
			for i := range uint64(2) {
				save(t, disk, revision(i+1, 1))
				if err := disk.Retain(); err != nil {
					t.Fatal(err)
				}
				content := good(t, path)
				for _, file := range []string{path, path + ".before.1"} {
					if err := errors.Join(os.Remove(file), put(file, content)); err != nil {
						t.Fatal(err)
					}
				}
				if got, err := disk.Load(); got != nil || err == nil {
					t.Errorf("got %v, %v, want an error alone", got, err)
				}
				if _, err := os.Lstat(path + ".bad"); err != nil {
					t.Errorf("not set aside: %v", err)
				}
				if got, err := disk.Retained(); err != nil || len(got) != 1 || len(got[0].Policies) != 0 {
					t.Errorf("retained: got %v, %v, want one that allows everything", got, err)
				}
				if err := disk.Release(); err != nil {
					t.Fatal(err)
				}
			}
			save(t, disk, revision(3, 1))
			if got := load(t, disk); got == nil || got.Number != 3 {
				t.Errorf("after a further save: got %v, want revision 3", got)
			}
			if _, err := subscribe.RemoveDisk(dir); err != nil {
				t.Fatal(err)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, "rule-set*")); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// linkTo puts a symbolic link to a file with the content at path.
func linkTo(path string, content []byte) error {
	target := filepath.Join(filepath.Dir(path), "target-"+filepath.Base(path))
	return errors.Join(os.WriteFile(target, content, 0o600), os.RemoveAll(path), os.Symlink(target, path))
}

// However little room there is, the one rule set is on disk or the other, whole.
func TestFullDisk(t *testing.T) {
	bpftest.RequirePrivileged(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	disk := subscribe.NewDisk(dir, slog.New(slog.DiscardHandler))
	number, failed, saved := uint64(1), 0, 0
	save(t, disk, revision(number, 60))
	page := make([]byte, os.Getpagesize())
	for room := range 12 {
		fill, err := os.Create(filepath.Join(dir, "fill"))
		if err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, err = fill.Write(page)
		}
		info, err := fill.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(fill.Truncate(info.Size()-int64(room*len(page))), fill.Close()); err != nil {
			t.Fatal(err)
		}
		if err := disk.Save(revision(number+1, 60)); err == nil {
			number, saved = number+1, saved+1
		} else {
			failed++
			if !errors.Is(err, unix.ENOSPC) {
				t.Errorf("room for %d pages: got %v, want no space left", room, err)
			}
		}
		if got := load(t, disk); got == nil || got.Number != number {
			t.Errorf("room for %d pages: got %v, want revision %d", room, got, number)
		}
		if _, err := os.Stat(filepath.Join(dir, "rule-set.new")); err == nil {
			t.Errorf("room for %d pages: a half written file takes it", room)
		}
		if err := os.Remove(fill.Name()); err != nil {
			t.Fatal(err)
		}
	}
	if failed == 0 || saved == 0 {
		t.Errorf("%d saves failed, %d did not; want both", failed, saved)
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
