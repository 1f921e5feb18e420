package bolt_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/nameward/nameward/controlplane/storage"
	"github.com/nameward/nameward/controlplane/storage/bolt"
)

// crashDir tells the test binary that it is the child that is going to be killed.
const crashDir = "NAMEWARD_TEST_CRASH_DIR"

func TestMain(m *testing.M) {
	for variable, child := range map[string]func(dir string) error{crashDir: writeUntilKilled, fullDir: writeUntilFull} {
		dir := os.Getenv(variable)
		if dir == "" {
			continue
		}
		if err := child(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// writeUntilKilled writes from several goroutines and prints each write after it was acknowledged.
func writeUntilKilled(dir string) error {
	b, err := bolt.Open(dir)
	if err != nil {
		return err
	}
	failed := make(chan error)
	var mu sync.Mutex
	for writer := range 8 {
		go func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("k/%d-%d", writer, i%50)
				var at uint64
				operation := storage.Operation{Key: key, Value: []byte(strconv.Itoa(i))}
				err := b.Commit(context.Background(), []storage.Operation{operation}, func(revision uint64) { at = revision })
				if err != nil {
					failed <- err
					return
				}
				mu.Lock()
				fmt.Printf("%s %d %d\n", key, i, at)
				mu.Unlock()
			}
		}()
	}
	return <-failed
}

// What was acknowledged before a kill -9 is there after it.
func TestKilledProcessKeepsWhatItAcknowledged(t *testing.T) {
	dir := t.TempDir()
	acknowledged := map[string]string{}
	var last uint64
	writes := 0
	for round := range 5 {
		lines := runAndKill(t, dir, 200+round*137)
		writes += len(lines)
		for _, line := range lines {
			var key, value string
			var revision uint64
			if _, err := fmt.Sscan(line, &key, &value, &revision); err != nil {
				t.Fatalf("read %q: %v", line, err)
			}
			acknowledged[key] = fmt.Sprintf("%s@%d", value, revision)
			last = max(last, revision)
		}
		b := open(t, dir)
		objects, meta := load(t, b)
		if meta.Revision < last {
			t.Errorf("round %d: revision is %d, acknowledged was %d", round, meta.Revision, last)
		}
		for key, want := range acknowledged {
			got := objects[key]
			if got == want {
				continue
			}
			// A later write of the same key may be on disk though its acknowledgement was not read.
			if _, at, _ := strings.Cut(got, "@"); got == "" || number(t, at) <= number(t, want[strings.Index(want, "@")+1:]) {
				t.Errorf("round %d: %s is %q, acknowledged was %q", round, key, got, want)
			}
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d acknowledged writes, none lost", writes)
}

// runAndKill starts a child, kills it after so many acknowledgements, and returns all that it wrote out.
func runAndKill(t *testing.T, dir string, after int) []string {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), crashDir+"="+dir)
	child.Stderr = os.Stderr
	output, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var lines []string
	scanner := bufio.NewScanner(output)
	for scanner.Scan() {
		lines = append(lines, scanner.Text())
		if len(lines) == after {
			if err := child.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := child.Wait(); err == nil || len(lines) < after {
		t.Fatalf("child ended by itself after %d writes: %v", len(lines), err)
	}
	// The kill may have cut the last line.
	if n := len(lines) - 1; len(strings.Fields(lines[n])) < 3 {
		lines = lines[:n]
	}
	return lines
}

func number(t *testing.T, s string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
