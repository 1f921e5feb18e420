package bolt_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/nameward/nameward/controlplane/storage"
	"github.com/nameward/nameward/controlplane/storage/bolt"
)

// fullDir tells the test binary that it is the child whose files may not grow: the limit is the process's.
const fullDir = "NAMEWARD_TEST_FULL_DIR"

// writeUntilFull writes until there is no more room, then makes room and writes once more.
func writeUntilFull(dir string) error {
	b, err := bolt.Open(dir)
	if err != nil {
		return err
	}
	if err := limitFiles(1 << 20); err != nil {
		return err
	}
	write := func(i int) error {
		operation := storage.Operation{Key: fmt.Sprintf("k/%04d", i), Value: make([]byte, 10_000)}
		return b.Commit(context.Background(), []storage.Operation{operation}, func(uint64) {})
	}
	i := 0
	for ; ; i++ {
		if err = write(i); err != nil {
			break
		}
	}
	fmt.Printf("%d writes, then: %v\n", i, err)
	if err := limitFiles(1 << 30); err != nil {
		return err
	}
	if err := write(9999); err != nil {
		return fmt.Errorf("write with room again: %w", err)
	}
	return b.Close()
}

func limitFiles(bytes uint64) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	limit.Cur = bytes
	return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit)
}

// A full disk refuses writes and costs nothing that was acknowledged; with room again, writes go on.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	child := exec.Command(os.Args[0]) //nolint:gosec // the test binary itself
	child.Env = append(os.Environ(), fullDir+"="+dir)
	output, err := child.CombinedOutput()
	if err != nil {
		t.Fatalf("child: %v\n%s", err, output)
	}
	var writes int
	if _, err := fmt.Sscanf(string(output), "%d writes", &writes); err != nil || writes == 0 {
		t.Fatalf("child said %q", output)
	}
	if !strings.Contains(string(output), "file too large") {
		t.Errorf("child said %q, want the cause", output)
	}
	objects, meta := load(t, open(t, dir))
	if len(objects) != writes+1 || meta.Revision != uint64(writes)+2 {
		t.Errorf("%d objects at revision %d, want %d at %d", len(objects), meta.Revision, writes+1, writes+2)
	}
}
