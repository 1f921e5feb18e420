package traffic

import (
	"context"
	"errors"
	"fmt"
	"strings"

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
func measureShared(ctx context.Context, p plan, ways []*way) (_ report.Result, err error) {
	var floods []*flood
	for _, w := range ways {
		f, err := newFlood(w, sharedPorts, sharedOutstanding)
		if err != nil {
			return report.Result{}, err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		floods = append(floods, f)
	}
	// The costs of a way: of each chunk, microseconds a name in each run.
	costs := make([][]measure.Series, len(ways))
	for i := range costs {
		costs[i] = make([]measure.Series, p.chunks)
	}
	for run := range p.runs + 1 {
		chunks := p.chunks
		if run == 0 {
			chunks = 1 // warms up
		}
		for chunk := range chunks {
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

const sharedText = `Many names of a content delivery network have one address. A client asks for fresh names that all have
the same address (a wildcard of knot), through a node that has seen ever more of them; each run begins with
another address. The time is that of the whole machine for one name: client, node and server. One proxy keeps
the names of each address and judges the address by all of them with each answer; the others forget the names.
`

func sharedResult(p plan, ways []*way, costs [][]measure.Series) report.Result {
	part := max(p.chunks/4, 1)
	plot := report.Plot{
		File: "shared-address.svg", Title: "Cost against fresh names on one address",
		X: "names that the address has", Y: "time a fresh name, µs", LogY: true, Ours: ours,
	}
	table := report.Table{
		Caption: "Time a fresh name",
		Columns: []string{
			"node", fmt.Sprintf("first %d names, µs (quartiles)", part*p.chunk), fmt.Sprintf("last %d of %d, µs", part*p.chunk, p.chunks*p.chunk), "growth",
		},
	}
	var budget report.Budget
	var others []string
	for i, w := range ways {
		line := report.Line{Name: w.name}
		for chunk, s := range costs[i] {
			low, high := s.Spread()
			line.Points = append(line.Points, report.Point{X: float64((chunk + 1) * p.chunk), Y: s.Median(), Low: low, High: high})
		}
		plot.Lines = append(plot.Lines, line)
		first, last := mean(costs[i][:part]), mean(costs[i][p.chunks-part:])
		growth := last.RatioTo(first)
		table.Rows = append(table.Rows, []string{w.name, spread(first, "%.1f"), spread(last, "%.1f"), spread(growth, "%.2f×")})
		switch w.name {
		case ours:
			budget = report.Budget{
				Work:    fmt.Sprintf("many fresh names on one address (CDN): the last of %s against the first", report.Thousands(float64(p.chunks*p.chunk))),
				Promise: fmt.Sprintf("flat: ≤ %.2f×", flat), Measured: spread(growth, "%.2f×"), Met: growth.Median() <= flat,
			}
		case emptyRules:
		default:
			others = append(others, fmt.Sprintf("%s: %.2f×", w.name, growth.Median()))
		}
	}
	budget.Beside = strings.Join(others, "; ")
	plot.Alternate = fmt.Sprintf("Time a fresh name against the names that its address has, from first to last. %s: %s; %s.", ours, budget.Measured, budget.Beside)
	return report.Result{
		Title: "Many fresh names on one address", Text: sharedText,
		Budgets: []report.Budget{budget}, Tables: []report.Table{table}, Plots: []report.Plot{plot},
	}
}

// mean is that of some series, round by round.
func mean(all []measure.Series) measure.Series {
	values := make([]float64, len(all[0].Values))
	for _, s := range all {
		for i, value := range s.Values {
			values[i] += value / float64(len(all))
		}
	}
	return measure.Series{Values: values}
}
