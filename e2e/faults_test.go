package e2e_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/e2e/lab"
)

var (
	faultsFor  = flag.Duration("faults", 2*time.Minute, "how long TestFaults injects faults")
	faultsSeed = flag.Uint64("faults-seed", 1, "what its faults are drawn from")
	faultsRate = flag.Int("faults-rate", 1000, "fresh names a second of its load")
)

// TestFaults injects faults, drawn by seed, into a node under load: fresh names are resolved and connected to
// at once, and what is denied is tried. No connection that is allowed fails and none that is denied passes,
// but those that meet rules which somebody else removed, until they are mended; and counters add up.
func TestFaults(t *testing.T) {
	requireRoot(t)
	f := newFaulty(t)
	var happened []string
	started := time.Now()
	for time.Since(started) < *faultsFor && !t.Failed() {
		fault := f.faults[f.random.IntN(len(f.faults))]
		began := time.Now()
		fault.inject(t)
		f.awaitCurrent()
		f.awaitRules(t, f.backend, f.rules)
		if fault.tampers {
			f.load.excuse(began, time.Now())
		}
		f.load.pass(f.fleet, int64(*faultsRate)/4)
		f.injected[fault.name]++
		happened = append(happened, fmt.Sprintf("%s until %s: %s", began.Format("15:04:05.000"), time.Now().Format("15:04:05.000"), fault.name))
	}
	f.load.stop()
	if f.load.report(t); t.Failed() {
		t.Logf("the faults:\n%s", strings.Join(happened, "\n"))
	}
	counters := f.expectCounters(t)
	t.Logf("seed %d: %d names at %.0f a second, %d connections refused, faults %v, counted %v", *faultsSeed,
		f.load.resolved.Load(), float64(f.load.resolved.Load())/f.load.lasted.Seconds(), f.load.refused.Load(), f.injected, counters)
}

// faulty is a fleet that faults are injected into.
type faulty struct {
	*fleet
	backend  string
	random   *rand.Rand
	releases []string // agents
	load     *load
	rules    string // ours, as they are when they stand
	faults   []fault
	injected map[string]int
	disk     string
}

type fault struct {
	name    string
	inject  func(t *testing.T)
	tampers bool // with rules of ours: until they are mended, nobody judges or learns
}

const (
	faultsQueryTimeout = 2 * time.Second
	diskBytes          = 16 << 20
	maxMappings        = 4096 // so that the table is full within seconds
)

func newFaulty(t *testing.T) *faulty {
	t.Helper()
	f := &faulty{random: rand.New(rand.NewPCG(*faultsSeed, 1)), injected: map[string]int{}} //nolint:gosec // the same for a seed
	f.backend = backends[*faultsSeed%2]
	f.fleet = newServer(t, newLab(t), "--iptables", f.backend, "--dns-query-timeout", faultsQueryTimeout.String(), "--max-mappings", fmt.Sprint(maxMappings))
	f.disk = filepath.Join(f.Dir, "agent")
	f.must(os.Mkdir(f.disk, 0o700))
	f.must(unix.Mount("tmpfs", f.disk, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", diskBytes)))
	t.Cleanup(func() { _ = unix.Unmount(f.disk, unix.MNT_DETACH) })
	agents, err := releases()
	f.must(err)
	f.releases = []string{agents.this, agents.otherPrograms, agents.otherLayout}
	f.Agent = agents.this
	f.startAgent()
	f.put(clientPolicy("*.endless.example"))
	f.rules, _ = f.savedRules(t, f.backend)
	f.load = f.startLoad(t, lab.EndlessName, *faultsRate, 8)
	f.faults = []fault{
		{"agent killed", f.killAgent, false},
		{"agent stopped", f.stopAgent, false},
		{"another release", f.changeRelease, false},
		{"server killed", f.killServer, false},
		{"server partitioned", f.partition, false},
		{"disk full", f.fillDisk, false},
		{"agent started on a full disk", f.startOnFullDisk, false},
		{"clock stepped", f.stepClock, false},
		{"policy changed", f.changePolicy, false},
		{"neighbour inserts", f.insertBefore, false},
		{"neighbour writes without end", f.writeRules, false},
		{"chain flushed", f.flushChain, true},
		{"jump deleted", f.deleteJump, true},
		{"old dump restored", f.restoreDump, true},
	}
	return f
}

func (f *faulty) killAgent(t *testing.T) {
	f.must(f.agent.Kill())
	f.load.pass(f.fleet, 200)
	f.startAgent()
}

func (f *faulty) stopAgent(t *testing.T) {
	f.must(f.agent.Stop())
	f.startAgent()
}

func (f *faulty) changeRelease(t *testing.T) {
	f.must(f.agent.Kill())
	f.Agent = f.releases[f.random.IntN(len(f.releases))]
	f.startAgent()
	pins, gone := "v4", "v5"
	if f.Agent == f.releases[2] {
		pins, gone = gone, pins
	}
	f.must(lab.Await(t.Context(), func() error { return layoutOnly(f.BPFDir, pins, gone) }, nil))
}

func (f *faulty) killServer(t *testing.T) {
	f.must(f.server.Kill())
	f.load.pass(f.fleet, 200)
	f.startServer()
}

// partition has the packets between agent and server vanish for a while.
func (f *faulty) partition(t *testing.T) {
	rule := strings.Fields("OUTPUT -p tcp --dport 7443 -j DROP")
	f.iptablesOf(t, append([]string{"-t", "raw", "-I"}, rule...)...)
	f.load.pass(f.fleet, 2*int64(*faultsRate))
	f.iptablesOf(t, append([]string{"-t", "raw", "-D"}, rule...)...)
}

func (f *faulty) fillDisk(t *testing.T) {
	free := f.leaveNoRoom(t)
	f.load.pass(f.fleet, int64(*faultsRate))
	free()
}

func (f *faulty) startOnFullDisk(t *testing.T) {
	f.must(f.agent.Kill())
	free := f.leaveNoRoom(t)
	f.startAgent()
	f.load.pass(f.fleet, int64(*faultsRate)/4)
	free()
}

func (f *faulty) leaveNoRoom(t *testing.T) (free func()) {
	file := filepath.Join(f.disk, "filler")
	if err := os.WriteFile(file, make([]byte, diskBytes), 0o600); err == nil {
		t.Error("the disk is larger than it was made")
	}
	return func() { f.must(os.Remove(file)) }
}

// stepClock sets the agent's clock: the machine's own is left alone. The server, which sees the difference, shows that
// it is set.
func (f *faulty) stepClock(t *testing.T) {
	steps := []time.Duration{0, 10 * time.Second, -10 * time.Second, time.Hour, -time.Hour, 400 * 24 * time.Hour, -400 * 24 * time.Hour}
	step := steps[f.random.IntN(len(steps))]
	f.must(f.StepClock(step))
	f.must(lab.Await(t.Context(), func() error {
		degraded := strings.Join(f.nodeUpstream(t).GetStatus().GetDegraded(), "; ")
		if told := strings.Contains(degraded, "clock"); told != (step.Abs() > time.Minute) {
			return fmt.Errorf("stepped by %v, degraded: %q", step, degraded)
		}
		return nil
	}, nil))
}

// writeRules has somebody add rules and delete them, in either backend, as fast as iptables does.
func (f *faulty) writeRules(t *testing.T) {
	backend := backends[f.random.IntN(2)]
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			for _, change := range []string{"-A", "-D"} {
				for _, table := range []string{"filter", "mangle"} {
					if out, err := f.command(t.Context(), "iptables-"+backend, "-w", "-t", table, change, "FORWARD", "-p", "sctp", "-j", "RETURN"); err != nil {
						done <- fmt.Errorf("%s a rule of %s in %s: %w: %s", change, backend, table, err, out)
						return
					}
				}
			}
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
		}
	}()
	f.load.pass(f.fleet, int64(*faultsRate))
	close(stop)
	f.must(<-done)
}

func (f *faulty) changePolicy(t *testing.T) {
	f.put(clientPolicy("*.endless.example", fmt.Sprintf("n%d.other.example", f.random.IntN(1000))))
}

func (f *faulty) insertBefore(t *testing.T) {
	for _, table := range []string{"mangle", "filter"} {
		f.iptablesOf(t, "-t", table, "-I", "OUTPUT", "1", "-m", "comment", "--comment", "neighbour")
		f.iptablesOf(t, "-t", table, "-I", "INPUT", "1", "-m", "comment", "--comment", "neighbour")
	}
}

func (f *faulty) flushChain(t *testing.T) {
	chains := []string{"PREROUTING", "SYN-FORWARDED", "POSTROUTING", "RESPONSE", "DENY"}
	f.iptablesOf(t, "-t", "mangle", "-F", "NAMEWARD-"+chains[f.random.IntN(len(chains))])
}

func (f *faulty) deleteJump(t *testing.T) {
	hook := []string{"PREROUTING", "POSTROUTING"}[f.random.IntN(2)]
	f.iptablesOf(t, "-t", "mangle", "-D", hook, "1")
}

// restoreDump writes back both tables as they were before there was an agent.
func (f *faulty) restoreDump(t *testing.T) {
	f.restoreRules(t, f.backend, "*mangle\nCOMMIT\n*filter\nCOMMIT\n")
}

func (f *faulty) iptablesOf(t *testing.T, args ...string) {
	t.Helper()
	for _, program := range []string{"iptables-", "ip6tables-"} {
		if out, err := f.command(t.Context(), program+f.backend, append([]string{"-w", "5"}, args...)...); err != nil {
			t.Fatalf("%s%s %v: %v: %s", program, f.backend, args, err, out)
		}
	}
}

// expectCounters holds what was counted against what was done: each answer once, but for those that came
// while rules were gone; each connection's verdict once, and again where its first packet was sent again; and more
// names lived than there is room for.
func (f *faulty) expectCounters(t *testing.T) map[string]uint64 {
	all, excused := f.load.answers()
	counters := f.counters(func(c map[string]uint64) bool { return responsesIn(c) >= uint64(all-excused) }) //nolint:gosec // a count
	if got := responsesIn(counters); got > uint64(all) {                                                    //nolint:gosec // a count
		t.Errorf("%d answers were counted, but only %d came", got, all)
	}
	if got, want := counters["verdicts_allow"], uint64(all-excused-f.load.late); got < want { //nolint:gosec // a count
		t.Errorf("%d connections were allowed, want %d or more", got, want)
	}
	// What an agent adds anew at its start gives way too.
	if got, least := counters["mappings_evicted"], uint64(all/2); got+maxMappings < least { //nolint:gosec // a count
		t.Errorf("%d mappings of %d gave way in a table of %d", got, all, maxMappings)
	}
	return counters
}

func responsesIn(counters map[string]uint64) (sum uint64) {
	for name, count := range counters {
		if strings.HasPrefix(name, "dns_responses_") {
			sum += count
		}
	}
	return sum
}
