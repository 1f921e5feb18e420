package store_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/controlplane/policy"
	"github.com/nameward/nameward/controlplane/storage/bolt"
	"github.com/nameward/nameward/controlplane/store"
)

// crashDir tells the test binary that it is the child that is going to be killed.
const crashDir = "NAMEWARD_TEST_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		fmt.Fprintln(os.Stderr, changeUntilKilled(dir))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// domainsOf are those of a set in a round, of many buckets: the same name in all says the round.
func domainsOf(round int) ([]domain.Pattern, error) {
	texts := make([]string, 3000+round%2*2000)
	for i := range texts {
		texts[i] = fmt.Sprintf("h%d.round-%d.example", i, round)
	}
	return policy.ParseDomains(texts, 0)
}

// changeUntilKilled replaces a set round after round, and in each adds to it and removes from it. It prints
// each change after it was acknowledged.
func changeUntilKilled(dir string) error {
	backend, err := bolt.Open(dir)
	if err != nil {
		return err
	}
	s, err := store.Open(context.Background(), backend)
	if err != nil {
		return err
	}
	for round := 1; ; round++ {
		domains, err := domainsOf(round)
		if err != nil {
			return err
		}
		set := &policy.DomainSet{DomainSet: ruleset.NewDomainSet("domainSets/s", domains)}
		for edited := range 20 {
			if edited > 0 {
				set.DomainSet = set.Edited(map[domain.Pattern]bool{domains[edited]: edited%2 == 0, domains[edited+1]: false})
			}
			stored, err := s.PutDomainSet(context.Background(), set, store.Guard{})
			if err != nil {
				return err
			}
			fmt.Printf("%d %d %s\n", stored.Revision, round, digest(stored))
		}
	}
}

// digest identifies what a set has.
func digest(set *policy.DomainSet) string {
	return ruleset.New(nil, set.DomainSet).ID().String()
}

// After a kill -9 a set is whole, and it is the last that was acknowledged or one that was on its way.
func TestKilledProcessLeavesWholeSets(t *testing.T) {
	dir := t.TempDir()
	for kill := range 5 {
		acknowledged := runAndKill(t, dir, 10+kill*17)
		s, closed := open(t, dir)
		set, err := s.DomainSet("domainSets/s")
		if err != nil {
			t.Fatal(err)
		}
		last := strings.Fields(acknowledged[len(acknowledged)-1])
		var revision uint64
		if _, err := fmt.Sscan(last[0], &revision); err != nil {
			t.Fatal(err)
		}
		switch {
		case set.Revision < revision:
			t.Errorf("kill %d: the set is of revision %d, acknowledged was %d", kill, set.Revision, revision)
		case set.Revision == revision && digest(set) != last[2]:
			t.Errorf("kill %d: the set of revision %d is not what was acknowledged", kill, revision)
		}
		// Of one round alone.
		round := func(p domain.Pattern) string { _, r, _ := strings.Cut(p.String(), "."); return r }
		if i := slices.IndexFunc(set.Domains, func(p domain.Pattern) bool { return round(p) != round(set.Domains[0]) }); i >= 0 {
			t.Errorf("kill %d: the set has %s and %s", kill, set.Domains[0], set.Domains[i])
		}
		closed()
	}
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
		t.Fatalf("child ended by itself after %d changes: %v", len(lines), err)
	}
	// The kill may have cut the last line.
	if n := len(lines) - 1; len(strings.Fields(lines[n])) < 3 || len(strings.Fields(lines[n])[2]) < 64 {
		lines = lines[:n]
	}
	return lines
}
