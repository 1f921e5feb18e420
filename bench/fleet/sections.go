// Package fleet measures the policy server: the real program, in a process of its own, with the agents of thousands
// of nodes in another (e2e/fleet), all over loopback. What it takes until they know, and of the server's processor
// and memory. Server and agents share the machine's processors, as in the figures that the budgets compare with.
package fleet

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/nameward/nameward/bench/measure"
	"github.com/nameward/nameward/bench/programs"
	"github.com/nameward/nameward/bench/report"
)

// Sections are the works that are measured here.
func Sections() []report.Section { return works{sizes: sizes}.sections() }

// works measures.
type works struct{ sizes func(fast bool) size }

// size is how much is measured.
type size struct {
	policies, nodes int
	syncs           int // first syncs of all nodes
	quiet           int // changes at a quiet rate
	busyTime        time.Duration
	burst           int           // changes at once
	burstPause      time.Duration // that the server gets to give back what a burst took
	connected       int           // nodes that are connected and come back
	domains, users  int           // a domain set, and the nodes that use it
	edits           int           // of one pattern each
	writes          int
	replaced        int // patterns of a set that is replaced
	reporters       int // nodes that report mappings
	mappings        int // that they report
	queries         int // of each kind
}

func sizes(fast bool) size {
	if fast {
		return size{2_000, 300, 1, 10, 3 * time.Second, 3_000, 2 * time.Second, 1_500, 100_000, 100, 5, 100, 100_000, 100, 200_000, 50}
	}
	return size{10_000, 1_000, 5, 200, 20 * time.Second, 25_000, 15 * time.Second, 10_000, 100_000, 1_000, 20, 1_000, 1_000_000, 1_000, 5_000_000, 200}
}

func (w works) sections() []report.Section {
	return []report.Section{
		{Name: "fleet-sync", Processes: true, Measure: w.with(syncs)},
		{Name: "fleet-sync-tls", Processes: true, Measure: w.with(securedSyncs)},
		{Name: "fleet-reconnect", Processes: true, Measure: w.with(reconnect)},
		{Name: "fleet-domain-set", Processes: true, Measure: w.with(domainSet)},
		{Name: "fleet-writes", Processes: true, Measure: w.with(writes)},
		{Name: "fleet-observations", Processes: true, Measure: w.with(observations)},
		{Name: "fleet-soak", Processes: true, Measure: w.soak},
	}
}

// work is what is measured of a server.
type work func(ctx context.Context, bin string, size size) (report.Result, error)

func (w works) with(measure work) func(context.Context, report.Config) (report.Result, error) {
	return func(ctx context.Context, config report.Config) (report.Result, error) {
		return measure(ctx, filepath.Join(config.Programs, programs.Server), w.sizes(config.Fast))
	}
}

// bareOf returns the path of the bare server that is beside a server.
func bareOf(bin string) string { return filepath.Join(filepath.Dir(bin), programs.Bare) }

func milliseconds(ms float64) string { return fmt.Sprintf("%.1f ms", ms) }

func seconds(s float64) string { return fmt.Sprintf("%.2f s", s) }

func inMilliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// quantiles is a row of a table: the median, its quartiles, and the 99th percentile.
func quantiles(name string, s measure.Series, text report.Format) []string {
	low, high := s.Spread()
	return []string{name, text(s.Median()), text(low) + " – " + text(high), text(s.Quantile(0.99))}
}
