package program

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/bench/measure"
	"github.com/nameward/nameward/bench/report"
	"github.com/nameward/nameward/bpf"
)

const linePerAddress = "Nameward, for each address"

func measureAddresses(ctx context.Context, config report.Config) (result report.Result, err error) {
	n, err := newNode(agentPatterns, effortOf(config))
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	return n.addresses(ctx, config.Names, sizes(config, []int{1, 2, 5, 10, 30, 100, 300, 1000}, []int{1, 10, 100, 1000}))
}

func (n *node) addresses(ctx context.Context, names []string, counts []int) (result report.Result, err error) {
	list, err := know(names[:1000])
	if err != nil {
		return result, err
	}
	patterns := patternsOf(list)
	if err := n.apply(ctx, oneSet(patterns)); err != nil {
		return result, err
	}
	baselines, err := newLPMs(patterns)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, baselines.close()) }()
	lines := newLines(ours)
	table := report.Table{Columns: []string{"addresses", ours, linePerAddress}}
	for _, l := range baselines {
		lines.add(l.name)
		table.Columns = append(table.Columns, l.name)
	}
	largest := 0
	for i, count := range counts {
		s, err := n.responseOf(ctx, baselines, list[i].name, count)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.E2BIG) {
			break // the kernel runs no program on a packet of that size
		}
		if err != nil {
			return result, fmt.Errorf("%d addresses: %w", count, err)
		}
		largest = count
		lines.points(count, s)
		row := []string{report.Thousands(float64(count)), ns(s[ours]), report.WholeNanoseconds(s[ours].Median() / float64(count))}
		for _, l := range baselines {
			row = append(row, ns(s[l.name]))
		}
		table.Rows = append(table.Rows, row)
	}
	result.Title = "A DNS response against the number of addresses in it, program alone"
	result.Text = fmt.Sprintf("Run hot, as above. An address takes time in every design; the question is how much. The largest response has %s addresses, the limit of what is learned from one, or what this kernel runs a program on.", report.Thousands(float64(largest)))
	result.Tables = []report.Table{table}
	result.Plots = []report.Plot{{
		File: "program-addresses.svg", Title: "Each further address of a response costs tens of nanoseconds, where a scan for each costs hundreds to a hundred thousand",
		X: "addresses in the response", Y: "time of the program", LogX: true, LogY: true, FormatY: report.Nanoseconds,
		Lines: lines.list, Ours: ours,
		Alternate: "Time of one DNS response against the number of its addresses: Nameward lies lowest, and all lines rise in proportion to the addresses.",
	}}
	return result, n.check()
}

// responseOf measures a response with so many addresses.
func (n *node) responseOf(ctx context.Context, baselines lpms, name string, count int) (samples, error) {
	l, err := newLookup(client, count, name, records(name, n.first, count)...)
	if err != nil {
		return nil, err
	}
	if err := n.resolve(l, bpf.DatapathCounterCOUNTER_LEARNED); err != nil {
		return nil, err
	}
	variants := []measure.Variant{
		hot(ours, n.hot.HotResponse, l.response), hot(askAgain, n.hot.HotNothing, l.response), hot(emptyProgram, n.hot.Empty, l.response),
	}
	for _, baseline := range baselines {
		variants = append(variants, hot(baseline.name, baseline.LpmResponse, l.response))
	}
	s, err := interleave(ctx, n.hotRounds, variants...)
	if err != nil {
		return nil, err
	}
	s[ours] = s.corrected(ours, askAgain, emptyProgram)
	return s, n.drain()
}
