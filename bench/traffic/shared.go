package traffic

import (
	"context"
	"errors"
	"fmt"

	"github.com/nameward/nameward/bench/measure"
	"github.com/nameward/nameward/bench/report"
)

const (
	sharedPorts       = 16
	sharedOutstanding = 2 // a port

	// flat is how much more the last names on an address may cost than the first.
	flat = 1.15
)

// measureShared finds what a fresh name costs when many others are on its address.
func measureShared(ctx context.Context, config report.Config) (report.Result, error) {
	return shared(ctx, planOf(config), config)
}

func shared(ctx context.Context, p plan, config report.Config) (_ report.Result, err error) {
	n, ways, err := newWays(ctx, patternsOf(config, p.patterns), emptyRules, ours, queueHeld, dnsmasqIPSet, proxy, proxyOfNames)
	if err != nil {
		return report.Result{}, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	var floods []*flood
	for _, w := range ways {
		f, err := newFlood(w, sharedPorts, sharedOutstanding)
		if err != nil {
			return report.Result{}, err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		floods = append(floods, f)
	}
	// costs are microseconds a name: of a way, of a chunk, of each run.
	costs := make([][]measure.Series, len(ways))
	for i := range costs {
		costs[i] = make([]measure.Series, p.chunks)
	}
	for run := range p.runs + 1 { // the first warms up
		for chunk := range p.chunks {
			for turn := range ways {
				i := (turn + run + chunk) % len(ways)
				rate, err := floods[i].ask(ctx, p.chunk, func(number int) string { return sharedName(run%sharedAddresses, number) })
				if err := errors.Join(err, ctx.Err()); err != nil {
					return report.Result{}, fmt.Errorf("%s: %w", ways[i].name, err)
				}
				if run > 0 {
					costs[i][chunk].Values = append(costs[i][chunk].Values, 1e6/rate)
				}
			}
		}
	}
	return sharedResult(p, ways, costs), nil
}

const sharedText = `Many names of a content delivery network have one address. Clients ask for fresh names that all have the
same address, through a node that has seen ever more of them; each run begins with another address. The time
is that of all the machine for one name: client, node and server.
`

func sharedResult(p plan, ways []*way, costs [][]measure.Series) report.Result {
	result := report.Result{Title: "Many fresh names on one address", Text: sharedText}
	plot := report.Plot{
		File: "shared-address.svg", Title: "Cost against fresh names on one address", X: "names that the address has", Y: "time a fresh name, µs",
		LogY: true, Ours: ours,
		Alternate: "Time a fresh name against names on its address: the proxy that keeps the names of each address becomes ever slower, the others stay as they are.",
	}
	last := p.chunks - 1
	table := report.Table{
		Caption: "Time a fresh name, µs",
		Columns: []string{"node", fmt.Sprintf("first %d", p.chunk), fmt.Sprintf("names %d to %d", last*p.chunk, p.chunks*p.chunk), "growth"},
	}
	for i, w := range ways {
		line := report.Line{Name: w.name}
		for chunk, s := range costs[i] {
			low, high := s.Spread()
			line.Points = append(line.Points, report.Point{X: float64((chunk + 1) * p.chunk), Y: s.Median(), Low: low, High: high})
		}
		plot.Lines = append(plot.Lines, line)
		growth := costs[i][last].RatioTo(costs[i][0])
		table.Rows = append(table.Rows, []string{w.name, spread(costs[i][0], "%.1f"), spread(costs[i][last], "%.1f"), spread(growth, "%.2f×")})
		if w.name == ours {
			result.Budgets = []report.Budget{{
				Work: fmt.Sprintf("many fresh names on one address (CDN): the last of %d names against the first", p.chunks*p.chunk), Promise: "flat",
				Measured: spread(growth, "%.2f×"), Met: growth.Median() <= flat,
			}}
		}
	}
	result.Tables, result.Plots = []report.Table{table}, []report.Plot{plot}
	return result
}
