package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/nameward/nameward/e2e/lab"
)

// Of other releases: one with other programs upon the same maps, and one whose maps are laid out otherwise.
var (
	otherPrograms = []lab.Edit{{File: "bpf/dns_response.bpf.c", Old: "\n", New: "\n\n"}}
	otherLayout   = []lab.Edit{
		{File: "dataplane/datapath/config.go", Old: `const layout = "v4"`, New: `const layout = "v5"`},
		{File: "bpf/types.h", Old: "#define MAPPING_SLOTS 5", New: "#define MAPPING_SLOTS 7"},
		{File: "bpf/types.h", Old: "sizeof(struct mapping) == 64", New: "sizeof(struct mapping) == 80"},
		{File: "bpf/types.h", Old: "\tMAPPING_TICK_SHIFT = 24, ", New: "\tMAPPING_TICK_SHIFT = 25, "},
	}
)

// handOver is how many answers may count twice or not at all, since they came while one layout's counters were
// read beside the other's: twice in the test, in which an answer comes every 10 ms.
const handOver = 4

// TestUpgrade runs one release after the other, killed each time, on a node under load: no connection that
// is allowed fails, none that is denied passes, what was learned stays known, and every answer counts once.
func TestUpgrade(t *testing.T) {
	requireRoot(t)
	agents, err := releases()
	if err != nil {
		t.Fatal(err)
	}
	forEachBackend(t, func(t *testing.T, backend string) {
		f := newFleet(t, "--iptables", backend, "--dns-query-timeout", "3s", "--ttl-grace", "1h") // longer than the test
		f.put(clientPolicy("*.fresh.example", "api.example"))
		f.expectOpen(t, lab.ResolverV4, "api.example")
		before := f.opened(t, "api.example")[:1]

		load := f.startLoad(t, func(_ netip.Addr, i int) string { return lab.FreshName(i) }, 100, 1)
		this := f.Agent
		for _, step := range []struct{ release, pins, gone string }{
			{agents.otherPrograms, "v4", "v5"}, {agents.otherLayout, "v5", "v4"}, {agents.otherPrograms, "v4", "v5"}, {this, "v4", "v5"},
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
		load.report(t)
		for _, name := range []string{"api.example", lab.FreshName(0), lab.FreshName(int(load.resolved.Load()) / 2)} {
			t.Logf("awaiting the mapping of %s", name)
			f.awaitMapping(name)
		}
		// A change of policy knows the names that were resolved under all of them.
		f.put(clientPolicy("late.example", lab.FreshName(2)))
		f.expectStillOpen(t, f.opened(t, lab.FreshName(2))[:1])
		if err := f.Connect(before[0], lab.ServicePort); !lab.Refused(err) {
			t.Errorf("connect to what is allowed no longer: %v, want refused", err)
		}
		answers, _ := load.answers()
		answers++ // api.example
		f.counters(func(c map[string]uint64) bool {
			got := int(sumOf(c, "dns_responses_learned", "dns_responses_unmatched")) //nolint:gosec // a count
			return got >= answers-handOver && got <= answers+handOver
		})
		t.Logf("%d names resolved and connected to, %d connections refused", load.resolved.Load(), load.refused.Load())
	})
}

// releases are the agents of this release and of others, with the lab's clock, built once.
var releases = sync.OnceValues(func() (agents struct{ this, otherPrograms, otherLayout string }, err error) {
	ctx := context.Background()
	if agents.this, err = lab.BuildAgent(ctx, filepath.Join(programs, "this")); err != nil {
		return agents, err
	}
	if agents.otherPrograms, err = lab.BuildAgent(ctx, filepath.Join(programs, "other-programs"), otherPrograms...); err != nil {
		return agents, err
	}
	agents.otherLayout, err = lab.BuildAgent(ctx, filepath.Join(programs, "other-layout"), otherLayout...)
	return agents, err
})

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
