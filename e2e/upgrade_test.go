package e2e_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nameward/nameward/e2e/lab"
)

// Of other releases: one with other programs upon the same maps, and one whose maps are laid out otherwise.
var (
	otherPrograms = []lab.Edit{{File: "bpf/dns_response.bpf.c", Old: "\n", New: "\n\n"}}
	otherLayout   = []lab.Edit{
		{File: "dataplane/datapath/config.go", Old: `const layout = "v1"`, New: `const layout = "v2"`},
		{File: "bpf/types.h", Old: "#define MAPPING_SLOTS 8", New: "#define MAPPING_SLOTS 4"},
		{File: "bpf/types.h", Old: "sizeof(struct mapping) == 64", New: "sizeof(struct mapping) == 32"},
		{File: "bpf/types.h", Old: "\tMAPPING_TICK_SHIFT = 24, ", New: "\tMAPPING_TICK_SHIFT = 25, "},
	}
)

// TestUpgrade runs one release after the other, killed each time, on a node under load: no connection that
// is allowed fails, none that is denied passes, what was learned stays known, and every answer counts once.
func TestUpgrade(t *testing.T) {
	requireRoot(t)
	programs := buildRelease(t, otherPrograms)
	layout := buildRelease(t, otherLayout)
	forEachBackend(t, func(t *testing.T, backend string) {
		f := newFleet(t, "--iptables", backend, "--dns-query-timeout", "3s")
		f.put(clientPolicy("*.fresh.example", "api.example"))
		f.expectOpen(t, lab.ResolverV4, "api.example")
		before := f.opened(t, "api.example")[:1]

		load := f.startLoad(t)
		this := f.Agent
		for _, step := range []struct{ release, pins, gone string }{
			{programs, "v1", "v2"}, {layout, "v2", "v1"}, {programs, "v1", "v2"}, {this, "v1", "v2"},
		} {
			f.must(f.agent.Kill())
			load.pass(f, 100) // while no agent runs
			f.Agent = step.release
			f.startAgent()
			f.must(lab.Await(t.Context(), func() error { return layoutOnly(f.BPFDir, step.pins, step.gone) }, nil))
			load.pass(f, 100)
			f.expectStillOpen(t, before)
		}
		load.stop()
		for _, name := range []string{"api.example", load.nameOf(0), load.nameOf(int(load.resolved.Load()) / 2)} {
			f.awaitMapping(name)
		}
		// A change of policy knows the names that were resolved under all of them.
		f.put(clientPolicy("late.example", load.nameOf(1)))
		f.expectStillOpen(t, f.opened(t, load.nameOf(1))[:1])
		if err := f.Connect(before[0], lab.ServicePort); !lab.Refused(err) {
			t.Errorf("connect to what is allowed no longer: %v, want refused", err)
		}
		// api.example, and evil.example once.
		answers := uint64(load.resolved.Load()) + 2
		counters := f.counters(func(c map[string]uint64) bool {
			return sumOf(c, "dns_responses_learned", "dns_responses_unmatched") >= answers
		})
		if got := sumOf(counters, "dns_responses_learned", "dns_responses_unmatched"); got != answers {
			t.Errorf("%d answers were counted, want %d", got, answers)
		}
		t.Logf("%d names resolved and connected to, %d connections refused", load.resolved.Load(), load.refused.Load())
	})
}

func buildRelease(t *testing.T, edits []lab.Edit) string {
	t.Helper()
	agent, err := lab.BuildAgent(t.Context(), t.TempDir(), edits...)
	if err != nil {
		t.Fatal(err)
	}
	return agent
}

// layoutOnly returns nil when pins of one layout are there and none of the other.
func layoutOnly(dir, pins, gone string) error {
	if _, err := os.Stat(filepath.Join(dir, pins)); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, gone)); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("pins of layout %s: %w", gone, err)
	}
	return nil
}

func sumOf(counters map[string]uint64, names ...string) (sum uint64) {
	for _, name := range names {
		sum += counters[name]
	}
	return sum
}

// loadInterval leaves the names of the zone to last for as long as a test does.
const loadInterval = 10 * time.Millisecond

// A load resolves fresh names and connects to them at once, and tries what is denied, until it is stopped.
type load struct {
	resolved, refused atomic.Int64
	done              chan struct{}
	group             sync.WaitGroup
}

func (f *fleet) startLoad(t *testing.T) *load {
	l := &load{done: make(chan struct{})}
	evil := f.learn(t, lab.ResolverV4, "evil.example")
	l.group.Go(func() {
		pace := time.NewTicker(loadInterval)
		defer pace.Stop()
		for i := 0; l.goesOn(); i++ {
			<-pace.C
			f.resolveAndConnect(t, lab.ResolverV4, l.nameOf(i))
			l.resolved.Add(1)
		}
	})
	l.group.Go(func() {
		for l.goesOn() {
			l.refuse(t, f, evil)
		}
	})
	t.Cleanup(l.stop)
	return l
}

func (l *load) nameOf(i int) string { return lab.FreshName(i) }

func (l *load) refuse(t *testing.T, f *fleet, evil netip.Addr) {
	if err := f.Connect(evil, lab.ServicePort); !lab.Refused(err) {
		t.Errorf("connect to %s, which is denied: %v, want refused at once", evil, err)
	}
	l.refused.Add(1)
}

func (l *load) goesOn() bool {
	select {
	case <-l.done:
		return false
	default:
		return true
	}
}

// pass waits until so many more names were resolved and connected to.
func (l *load) pass(f *fleet, names int64) {
	f.t.Helper()
	until := l.resolved.Load() + names
	f.must(lab.Await(f.t.Context(), func() error {
		if now := l.resolved.Load(); now < until {
			return fmt.Errorf("%d names resolved of %d", now, until)
		}
		return nil
	}, nil))
}

func (l *load) stop() {
	select {
	case <-l.done:
	default:
		close(l.done)
	}
	l.group.Wait()
}
