package traffic

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/nameward/nameward/bench/measure"
	"github.com/nameward/nameward/bench/report"
)

const (
	floodPorts       = 64
	floodOutstanding = 4 // a port: all together fit what a server's socket holds

	// knownNames is how many names are asked for again and again.
	knownNames     = 4096
	knownNamesFrom = 7_500_000

	// freshNamesFrom is behind what is visited.
	freshNamesFrom = 1_000_000
	// unasked is how many fresh names no flood by turns comes to.
	unasked = 5_000_000

	queriesBudget = 0.95
)

// measureQueries finds how many questions a second come back answered through each node.
func measureQueries(ctx context.Context, p plan, ways []*way) (report.Result, error) {
	nameKnown := func(number int) string {
		name, _ := freshName(knownNamesFrom + number%knownNames)
		return name
	}
	known, err := floodAll(ctx, p, ways, nameKnown)
	if err != nil {
		return report.Result{}, err
	}
	nameFresh := func(number int) string {
		name, _ := freshName(freshNamesFrom + number%(knownNamesFrom-freshNamesFrom))
		return name
	}
	fresh, err := floodAll(ctx, p, ways, nameFresh)
	if err != nil {
		return report.Result{}, err
	}
	mine := ways[slices.IndexFunc(ways, func(w *way) bool { return w.name == ours })]
	times, err := mine.programTimes(ctx, p.slice, nameKnown)
	if err != nil {
		return report.Result{}, err
	}
	freshTimes, err := mine.programTimes(ctx, p.slice, func(number int) string { return nameFresh(number + unasked) })
	if err != nil {
		return report.Result{}, err
	}
	return report.Result{
		Title: "DNS queries a second through a node",
		Text:  fmt.Sprintf(queriesText, floodPorts, floodOutstanding, knownNames, report.Thousands(float64(p.patterns))),
		Budgets: []report.Budget{
			queriesBudgetOf("names asked for before", known, whatStandsInTheWay(seriesOf(known, emptyRules), times)),
			queriesBudgetOf("names always fresh", fresh, whatFreshNamesTake(fresh, freshTimes)),
		},
		Tables: []report.Table{
			queriesTable("Names that were asked for before, again and again", known),
			queriesTable("Fresh names, each with an address of its own", fresh),
			programsTable(times, freshTimes),
		},
	}, nil
}

func queriesBudgetOf(which string, all []measure.Series, note string) report.Budget {
	ratio := seriesOf(all, ours).RatioTo(seriesOf(all, emptyRules))
	budget := report.Budget{
		Work:     "max DNS queries a second through the node, " + which + ", against the same rules with an empty program",
		Promise:  fmt.Sprintf("≥ %.2f×", queriesBudget),
		Measured: spread(ratio, "%.3f×"),
		Met:      ratio.Median() >= queriesBudget,
		Beside:   ratiosOfOthers(all, emptyRules),
	}
	if !budget.Met {
		budget.Note = note
	}
	return budget
}

const queriesText = `A client asks a DNS server (knot 3, which makes the addresses from the names) through a node, from %d
ports with %d questions outstanding each; what counts are the answers a second, sampled by turns. Client, node
and server share the machine, which is busy throughout, so a rate says what all of them together cost for a
question, the client's sending included: the node without rules is the most that this client and server do.
Nameward learns each answer before it passes on (of %d names that are asked for again and again, or of names
that are always fresh; %s domain patterns are in force). The empty programs stand in the very same rules and do
nothing. The nodes of NFQUEUE, dnsmasq and the proxy put each address into a set that a rule matches; with
dnsmasq and the proxy the client asks the node. Of fresh names the agent takes note in its own time, with its
journal and the policy server: that too is on this machine.
`

// floodAll floods each way by turns, for a slice of time.
func floodAll(ctx context.Context, p plan, ways []*way, name func(number int) string) (_ []measure.Series, err error) {
	var variants []measure.Variant
	for _, w := range ways {
		f, err := newFlood(w, floodPorts, floodOutstanding)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		variants = append(variants, measure.Variant{Name: w.name, Sample: func(ctx context.Context) (float64, error) {
			slice, cancel := context.WithTimeout(ctx, p.slice)
			defer cancel()
			rate, err := f.ask(slice, 0, name)
			return rate, errors.Join(err, ctx.Err())
		}})
	}
	return measure.Interleave(ctx, p.rounds, variants...)
}

func queriesTable(caption string, all []measure.Series) report.Table {
	table := report.Table{
		Caption: caption,
		Columns: []string{"node", "queries/s (quartiles)", "of empty programs", "of no rules"},
	}
	for _, s := range all {
		table.Rows = append(table.Rows, []string{
			s.Name, spread(s, "%.0f"), spread(s.RatioTo(seriesOf(all, emptyRules)), "%.3f×"), fmt.Sprintf("%.3f×", s.RatioTo(seriesOf(all, noRules)).Median()),
		})
	}
	return table
}
