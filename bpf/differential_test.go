package bpf_test

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
)

var (
	executions = flag.Int("executions", 20000, "responses that TestDifferential compares")
	seed       = flag.Uint64("seed", 1, "what TestDifferential's scripts are drawn from")
	shard      = flag.Int64("shard", 0, "the first shard of the scripts: to go on where a run ended")
	workers    = flag.Int("workers", 1, "how many of TestDifferential run at once")
)

// shardScripts share their settings and patterns, and can be run by themselves.
const shardScripts = 300

// TestDifferential compares the programs with the oracle on random scripts. A few thousand responses run
// with every test, millions with `make differential`.
func TestDifferential(t *testing.T) {
	bpftest.RequirePrivileged(t)
	defer debug.SetGCPercent(debug.SetGCPercent(1000)) // little of it lives
	next, left := atomic.Int64{}, atomic.Int64{}
	next.Store(*shard)
	left.Store(int64(*executions))
	began := time.Now()
	var group sync.WaitGroup
	var comparisons []*comparison
	for range *workers {
		c := newComparison(t)
		comparisons = append(comparisons, c)
		group.Go(func() {
			for left.Load() > 0 && !t.Failed() {
				mine := next.Add(1) - 1
				before := c.executed
				c.runShard(mine)
				if now := left.Add(int64(before - c.executed)); mine%100 == 99 {
					t.Logf("shard %d: %d executions left after %v", mine, max(now, 0), time.Since(began).Round(time.Second))
				}
			}
		})
	}
	group.Wait()
	t.Logf("%d executions of seed %d, up to shard %d, in %v", int64(*executions)-left.Load(), *seed, next.Load()-1, time.Since(began).Round(time.Second))
	for counter := range bpf.DatapathCounterCOUNTER_BUSY {
		seen := 0
		for _, c := range comparisons {
			seen += c.reasons[counter]
		}
		if t.Logf("counter %d: %d", counter, seen); seen == 0 && counter != bpf.DatapathCounterCOUNTER_UNTRUSTED {
			t.Errorf("no response was counted by counter %d", counter)
		}
	}
}

// runShard compares the scripts of a shard, up to the first difference.
func (c *comparison) runShard(shard int64) {
	w := newScripter(rand.New(rand.NewPCG(*seed, uint64(shard))))
	for i := range shardScripts {
		s := w.script()
		if !c.holds(s) {
			c.t.Errorf("shard %d of seed %d, script %d", shard, *seed, i)
			return
		}
		if c.t.Failed() {
			return
		}
	}
}

// holds compares a script and reports what differs. Where the machine stood still for longer than the ages
// of a script allow, it is compared again.
func (c *comparison) holds(s *script) bool {
	c.t.Helper()
	const still = time.Second
	for range 3 {
		began := time.Now()
		faults := c.compare(s)
		if len(faults) == 0 {
			return true
		}
		if time.Since(began) < still {
			for _, fault := range faults {
				c.t.Error(fault)
			}
			c.keep(s)
			return false
		}
	}
	c.t.Errorf("the machine stands still too often to compare\n%s", s)
	return false
}

// keep makes a script as short as it may be to differ, and a file of it.
func (c *comparison) keep(s *script) {
	c.t.Helper()
	differs := func(s script) bool { return len(c.compare(&s)) > 0 }
	short := *s
	for at := 0; at < len(short.steps); {
		shorter := short
		shorter.steps = slices.Delete(slices.Clone(short.steps), at, at+1)
		if differs(shorter) {
			short = shorter
		} else {
			at++
		}
	}
	for generation := range short.patterns {
		for at := 0; at < len(short.patterns[generation]); {
			shorter := short
			shorter.patterns[generation] = slices.Delete(slices.Clone(short.patterns[generation]), at, at+1)
			if differs(shorter) {
				short = shorter
			} else {
				at++
			}
		}
	}
	file := fmt.Sprintf("testdata/differential/%x.txt", sha256.Sum256([]byte(short.String())))[:len("testdata/differential/")+12] + ".txt"
	if err := os.WriteFile(file, []byte(short.String()), 0o644); err != nil {
		c.t.Errorf("keep the script: %v\n%s", err, &short)
		return
	}
	c.t.Logf("kept as %s", file)
}

// TestDifferencesFound runs the scripts that once showed a difference, and some that state a rule.
func TestDifferencesFound(t *testing.T) {
	files, err := filepath.Glob("testdata/differential/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("scripts: %v, %v", files, err)
	}
	c := newComparison(t)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			c.reportTo(t)
			c.holds(parseScript(t, string(text)))
		})
	}
}

// FuzzDifferential looks for messages by what they cover of the oracle. The programs themselves give no
// coverage.
func FuzzDifferential(f *testing.F) {
	c := newComparison(f)
	v := newVocabulary(rand.New(rand.NewPCG(1, 2)))
	q := wireQuestion{id: 4711, name: nameOf("api.example.com"), kind: dns.TypeA, class: dns.ClassINET}
	head := newScripter(v.Rand).head
	head.patterns[0] = parsePatterns(f, "api.example.com", "*.example.com", "example.com", "*.cdn.test", "s3-*.example.com", "www.*.test", "*")
	for range 50 {
		f.Add(v.response(q, v.records(q.name, v.names(head.patterns[0]))))
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		if len(message) > testRunBytes {
			return // more than a test run takes: TestDifferential has those
		}
		c.reportTo(t)
		s := head
		s.ask(0, v.query(q))
		s.answer(0, message)
		s.answer(0, message)
		c.holds(&s)
	})
}
