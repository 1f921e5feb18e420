// Package traffic measures what a node does to the DNS of its clients: real clients ask a real server through
// it and connect to what the answers say. In network namespaces there is one world, and for each variant a
// client and a node of its own, among them one on which the agent runs, and those that others run today.
package traffic

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nameward/nameward/bench/measure"
	"github.com/nameward/nameward/bench/report"
)

// Sections are what this package measures.
func Sections() []report.Section {
	others := []string{noRules, oneRule, emptyRules, ours, queueHeld, queueFree, dnsmasqIPSet, dnsmasqNFT, proxy}
	return []report.Section{
		{Name: "queries", Processes: true, Measure: through(others, measureQueries)},
		{Name: "connect", Processes: true, Measure: through(others, measureConnect)},
		{Name: "shared-address", Processes: true, Measure: through([]string{emptyRules, ours, queueHeld, dnsmasqIPSet, proxy, proxyOfNames}, measureShared)},
	}
}

// through builds the nodes that are measured, and removes them.
func through(nodes []string, measure func(context.Context, plan, []*way) (report.Result, error)) func(context.Context, report.Config) (report.Result, error) {
	return func(ctx context.Context, config report.Config) (_ report.Result, err error) {
		p := planOf(config)
		p.patterns = min(p.patterns, len(config.Names))
		n, ways, err := newWays(ctx, config.Programs, config.Names[:p.patterns], nodes...)
		if err != nil {
			return report.Result{}, err
		}
		defer func() { err = errors.Join(err, n.Close()) }()
		return measure(ctx, p, ways)
	}
}

// A plan says how much is measured.
type plan struct {
	patterns int // in the domain set that is in force

	rounds int // of queries
	slice  time.Duration

	visitRounds, visits int // visits a round
	firstPackets        int // of ours
	firstPacketsFree    int // of what loses some

	runs, chunks, chunk int // of fresh names on one address: chunks a run, names a chunk
}

func planOf(config report.Config) plan {
	if config.Fast {
		return plan{
			patterns: 10_000, rounds: 3, slice: 150 * time.Millisecond,
			visitRounds: 8, visits: 100, firstPackets: 10_000, firstPacketsFree: 500,
			runs: 1, chunks: 6, chunk: 2000,
		}
	}
	return plan{
		patterns: 100_000, rounds: 12, slice: time.Second,
		visitRounds: 200, visits: 50, // rounds so short that what disturbs a machine disturbs all nodes of one
		firstPackets: 100_000, firstPacketsFree: 10_000,
		runs: 5, chunks: 16, chunk: 1000,
	}
}

// seriesOf finds the series of a variant.
func seriesOf(all []measure.Series, name string) measure.Series {
	for _, s := range all {
		if s.Name == name {
			return s
		}
	}
	panic("no variant " + name)
}

// ratiosOfOthers says what each way that is not ours took of another.
func ratiosOfOthers(all []measure.Series, baseline string) string {
	var parts []string
	for _, s := range all {
		if !slices.Contains([]string{noRules, oneRule, emptyRules, ours}, s.Name) {
			parts = append(parts, fmt.Sprintf("%s: %.2f×", s.Name, s.RatioTo(seriesOf(all, baseline)).Median()))
		}
	}
	return strings.Join(parts, "; ")
}

// spread says a median with its quartiles.
func spread(s measure.Series, format string) string {
	low, high := s.Spread()
	return fmt.Sprintf(format+" ("+format+"–"+format+")", s.Median(), low, high)
}
