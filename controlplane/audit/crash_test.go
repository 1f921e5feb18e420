package audit_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/controlplane/audit"
	"github.com/nameward/nameward/controlplane/store"
)

// crashDir tells the test binary that it is the child that is going to be killed.
const crashDir = "NAMEWARD_TEST_AUDIT_CRASH_DIR"

// crashSettings have the child leave files now and then.
var crashSettings = audit.Config{MaxBytes: 64 << 10, MaxFiles: 1000}

// changeUntilKilled changes policies from several sides, one policy from all of them, and prints each change after it
// was acknowledged.
func changeUntilKilled(dir string) error {
	k, err := openKept(dir, crashSettings)
	if err != nil {
		return err
	}
	first := k.Revision()
	var output sync.Mutex
	failed := make(chan error, 1)
	for worker := range 4 {
		go func() {
			for round := 0; ; round++ {
				id := fmt.Sprintf("w%d", worker)
				if round%3 == 0 {
					id = "shared"
				}
				stored, err := k.PutPolicy(context.Background(), policyOf(id, fmt.Sprintf("%d-%d-%d", first, worker, round), "a.example"), store.Guard{})
				if err != nil {
					failed <- err
					return
				}
				output.Lock()
				fmt.Printf("%d %s %s\n", stored.Revision, stored.Name, stored.Description)
				output.Unlock()
			}
		}()
	}
	return <-failed
}

// After a kill -9 every change that was acknowledged is on record with its revision, and of every other it is known
// that it was not made.
func TestKilledServerLeavesAWholeLog(t *testing.T) {
	dir := t.TempDir()
	acknowledged := map[string]string{} // by revision
	for kill := range 5 {
		for _, line := range runAndKill(t, dir, 20+kill*37) {
			fields := strings.Fields(line)
			acknowledged[fields[0]] = fields[1] + " " + fields[2]
		}
		k := open(t, dir, crashSettings)
		recorded := map[string]string{}
		for _, event := range k.list(t, audit.Filter{}) {
			description := event.GetAfter().GetPolicy().GetDescription()
			switch event.GetOutcome() {
			case namewardv1.AuditEvent_COMMITTED:
				revision := fmt.Sprint(event.GetRevision())
				if recorded[revision] != "" {
					t.Errorf("kill %d: two changes are of revision %s", kill, revision)
				}
				recorded[revision] = event.GetResource() + " " + description
			case namewardv1.AuditEvent_NOT_COMMITTED:
			default:
				t.Errorf("kill %d: nobody knows what became of %s: %s of before %d", kill, event.GetName(), event.GetResource(), event.GetBeforeRevision())
			}
		}
		for revision, what := range acknowledged {
			if recorded[revision] != what {
				t.Errorf("kill %d: acknowledged was %s at %s, on record is %q", kill, what, revision, recorded[revision])
			}
		}
		// What is on record as made is what there is.
		if got, want := uint64(len(recorded))+1, k.Revision(); got != want {
			t.Errorf("kill %d: %d changes are on record at revision %d", kill, len(recorded), want)
		}
		if err := k.close(); err != nil {
			t.Fatal(err)
		}
	}
}

// runAndKill starts a child, kills it after so many acknowledgements, and returns all that it wrote out.
func runAndKill(t *testing.T, dir string, after int) []string {
	t.Helper()
	child := exec.Command(os.Args[0]) //nolint:gosec // the test binary itself
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
		t.Fatalf("child ended by itself after %d changes: %v", len(lines), err)
	}
	// The kill may have cut the last line.
	if last := strings.Fields(lines[len(lines)-1]); len(last) != 3 || strings.Count(last[2], "-") != 2 {
		lines = lines[:len(lines)-1]
	}
	return lines
}
