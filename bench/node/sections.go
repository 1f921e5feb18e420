// Package node measures the agent as a process: the real one, on a node of the lab with real iptables rules,
// with a server that plays it its part over gRPC. What it costs to take in rules, to follow what the kernel
// learns, and to do nothing.
package node

import (
	"context"
	"fmt"
	"time"

	"github.com/nameward/nameward/bench/measure"
	"github.com/nameward/nameward/bench/report"
)

// Sections are the works that are measured here.
func Sections() []report.Section { return works{sizes: sizes}.sections() }

// works measures.
type works struct{ sizes func(fast bool) size }

// size is how much is measured.
type size struct {
	patterns  int
	changes   int // of one pattern each
	removals  int
	mappings  int
	lifetime  time.Duration // of mappings whose end is watched, at least
	responses int           // a second
	duration  time.Duration // of responses
	rounds    int           // of idling
	idle      time.Duration // a round
}

func sizes(fast bool) size {
	if fast {
		return size{100_000, 10, 1, 50_000, 3 * time.Second, 20_000, 2 * time.Second, 2, 3 * time.Second}
	}
	return size{100_000, 200, 10, 50_000, 20 * time.Second, 20_000, 10 * time.Second, 5, 20 * time.Second}
}

func (w works) sections() []report.Section {
	return []report.Section{
		{Name: "agent-rules", Processes: true, Measure: w.with(rules{}.measure)},
		{Name: "agent-mappings", Processes: true, Measure: w.with(mappings{}.measure)},
		{Name: "agent-responses", Processes: true, Measure: w.with(responses{}.measure)},
		{Name: "agent-idle", Processes: true, Measure: w.with(idle{}.measure)},
	}
}

// work is what is measured of the agent in a directory.
type work func(ctx context.Context, bin string, size size, names []string) (report.Result, error)

func (w works) with(measure work) func(context.Context, report.Config) (report.Result, error) {
	return func(ctx context.Context, config report.Config) (report.Result, error) {
		return measure(ctx, config.Programs, w.sizes(config.Fast), config.Names)
	}
}

func megabytes(bytes float64) string { return fmt.Sprintf("%.0f MB", bytes/1e6) }

func thousands(n int) string { return report.Thousands(float64(n)) }

func milliseconds(d float64) string { return fmt.Sprintf("%.1f ms", d) }

func inMilliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// quantiles is a row of a table: the median, its quartiles, and the 99th percentile.
func quantiles(name string, s measure.Series, text func(float64) string) []string {
	low, high := s.Spread()
	return []string{name, text(s.Median()), text(low) + " – " + text(high), text(s.Quantile(0.99))}
}
