package traffic

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/nameward/nameward/bench/measure"
	"github.com/nameward/nameward/bench/report"
)

const (
	connectBudget = 1.10

	// firstPacketClients is how many clients visit at once when lost first packets are counted.
	firstPacketClients = 4
)

// measureConnect finds how long it takes to resolve a fresh name and to connect to it, and whether the first
// packet comes through.
func measureConnect(ctx context.Context, p plan, ways []*way) (report.Result, error) {
	c := comparison{next: 0, every: map[string]*visits{}}
	var variants []measure.Variant
	for _, w := range ways {
		c.every[w.name] = &visits{}
		variants = append(variants, measure.Variant{Name: w.name, Sample: func(ctx context.Context) (float64, error) {
			return c.sample(ctx, w, p.visits)
		}})
	}
	series, err := measure.Interleave(ctx, p.visitRounds, variants...)
	if err != nil {
		return report.Result{}, err
	}
	lost := map[string]visits{}
	for _, w := range ways {
		count := map[string]int{ours: p.firstPackets, queueFree: p.firstPacketsFree}[w.name]
		if lost[w.name], err = c.firstPackets(ctx, w, count); err != nil {
			return report.Result{}, fmt.Errorf("%s: %w", w.name, err)
		}
	}
	return c.result(series, lost), nil
}

// A comparison visits ever new names: each node has its own state, but a name is fresh for all of them.
type comparison struct {
	next  int
	every map[string]*visits // of a way, in all rounds
}

// sample gives the median of some visits.
func (c *comparison) sample(ctx context.Context, w *way, count int) (float64, error) {
	v, err := w.visit(ctx, c.next, count)
	c.next += count
	if err != nil {
		return 0, err
	}
	all := c.every[w.name]
	all.took, all.lost = append(all.took, v.took...), all.lost+v.lost
	if len(v.took) == 0 {
		return 0, errors.New("no connection came through")
	}
	return measure.Series{Values: v.took}.Median(), nil
}

// firstPackets visits many names, from several clients at once.
func (c *comparison) firstPackets(ctx context.Context, w *way, count int) (visits, error) {
	parts := make([]visits, firstPacketClients)
	group, ctx := errgroup.WithContext(ctx)
	for i := range parts {
		from := c.next
		share := count / firstPacketClients
		c.next += share
		group.Go(func() (err error) {
			parts[i], err = w.visit(ctx, from, share)
			return err
		})
	}
	err := group.Wait()
	var all visits
	for _, part := range parts {
		all.took, all.lost = append(all.took, part.took...), all.lost+part.lost
	}
	return all, err
}

const connectText = `A client resolves a name that nobody asked for before, and connects to its address as soon as the
answer is there, one after the other and from a new port each time: the time of both together. A first packet
is lost when it is refused or must be sent again (TCP_INFO tells); an application waits a second for that, or
sees an error. In the last column %d clients visit at once.
`

func (c *comparison) result(series []measure.Series, first map[string]visits) report.Result {
	plain := seriesOf(series, oneRule)
	ratio := seriesOf(series, ours).RatioTo(plain)
	table := report.Table{
		Caption: "Resolve a fresh name, then connect",
		Columns: []string{"node", "p50, µs (quartiles of rounds)", "of one conntrack rule", "p99, µs", "first packets lost", "lost, several clients"},
	}
	for _, s := range series {
		all := c.every[s.Name]
		table.Rows = append(table.Rows, []string{
			s.Name, spread(s, "%.0f"), spread(s.RatioTo(plain), "%.3f×"), fmt.Sprintf("%.0f", measure.Series{Values: all.took}.Quantile(0.99)),
			lostOf(*all), lostOf(first[s.Name]),
		})
	}
	lost := first[ours].lost + c.every[ours].lost
	latency := report.Budget{
		Work: "resolve, then connect, fresh names: p50 against one plain conntrack rule", Promise: fmt.Sprintf("≤ %.2f×", connectBudget),
		Measured: spread(ratio, "%.3f×"), Met: ratio.Median() <= connectBudget,
		Beside: ratiosOfOthers(series, oneRule),
	}
	if !latency.Met {
		latency.Note = fmt.Sprintf("The same rules with empty programs take %.3f× of one rule, ours %.3f× of those.",
			seriesOf(series, emptyRules).RatioTo(plain).Median(), seriesOf(series, ours).RatioTo(seriesOf(series, emptyRules)).Median())
	}
	return report.Result{
		Title:  "Resolve, then connect",
		Text:   fmt.Sprintf(connectText, firstPacketClients),
		Tables: []report.Table{table},
		Budgets: []report.Budget{
			latency,
			{
				Work: "resolve, then connect, fresh names: first packets lost", Promise: "0 of 100,000",
				Measured: lostOf(visits{took: append(first[ours].took, c.every[ours].took...), lost: lost}), Met: lost == 0,
				Beside: queueFree + ": " + lostOf(*c.every[queueFree]),
			},
		},
	}
}

func lostOf(v visits) string {
	count := len(v.took) + v.lost
	if count == 0 {
		return "–"
	}
	if v.lost == 0 {
		return "0 of " + report.Thousands(float64(count))
	}
	return fmt.Sprintf("%s of %s (%.1f %%)", report.Thousands(float64(v.lost)), report.Thousands(float64(count)), 100*float64(v.lost)/float64(count))
}
