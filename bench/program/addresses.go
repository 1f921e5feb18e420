package program

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
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
	statistics, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		return result, fmt.Errorf("have the kernel measure programs: %w", err)
	}
	defer func() { err = errors.Join(err, statistics.Close()) }()
	lines := newLines(ours)
	table := report.Table{Columns: []string{"addresses", ours, linePerAddress}}
	for _, l := range baselines {
		lines.add(l.name)
		table.Columns = append(table.Columns, l.name)
	}
	for i, count := range counts {
		s, err := n.responseOf(ctx, baselines, list[i].name, count)
		if err != nil {
			return result, fmt.Errorf("%d addresses: %w", count, err)
		}
		lines.points(count, s)
		row := []string{report.Thousands(float64(count)), ns(s[ours]), report.WholeNanoseconds(s[ours].Median() / float64(count))}
		for _, l := range baselines {
			row = append(row, s.cell(l.name))
		}
		table.Rows = append(table.Rows, row)
	}
	result.Title = "A DNS response against the number of addresses in it, program alone"
	result.Text = "Run hot, as the filter of a socket to which the packet is written again and again, since `BPF_PROG_TEST_RUN` takes no packet of more than a page; the kernel's statistics tell the time. Each address takes time in every design; the question is how much. " +
		"1,000 addresses are the limit of what is learned from one response. The scan of many buckets takes so long that it is measured with up to 100 addresses."
	result.Tables = []report.Table{table}
	result.Plots = []report.Plot{{
		File: "program-addresses.svg", Title: lines.title("A response takes %s with one address and %s with the most", ours),
		X: "addresses in the response", Y: "time of the program", LogX: true, LogY: true, NanosecondsY: true,
		Lines: lines.list, Ours: ours,
		Alternate: "Time of one DNS response against the number of its addresses. " + lines.ends(),
	}}
	return result, n.check()
}

// responseOf measures a response with so many addresses.
func (n *node) responseOf(ctx context.Context, baselines lpms, name string, count int) (s samples, err error) {
	l, err := newLookup(client, count, name, records(name, n.first, count)...)
	if err != nil {
		return nil, err
	}
	if err := n.ask(l); err != nil {
		return nil, err
	}
	programs := map[string]*ebpf.Program{ours: n.hot.HotResponse, askAgain: n.hot.HotNothing, emptyProgram: n.hot.Empty}
	for i, baseline := range baselines {
		if lpmBuckets[i] == lpmBuckets[0] || count <= 100 {
			programs[baseline.name] = baseline.LpmResponse
		}
	}
	var variants []measure.Variant
	for _, name := range slices.Sorted(maps.Keys(programs)) {
		f, err := newFilter(programs[name])
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, f.close()) }()
		variants = append(variants, f.filtered(name, l.response))
	}
	before, err := n.counted(bpf.DatapathCounterCOUNTER_LEARNED)
	if err != nil {
		return nil, err
	}
	if s, err = interleave(ctx, n.hotRounds, variants...); err != nil {
		return nil, err
	}
	after, err := n.counted(bpf.DatapathCounterCOUNTER_LEARNED)
	if err == nil && after == before {
		err = errors.New("no response was learned")
	}
	s[ours] = s.corrected(ours, askAgain, emptyProgram)
	return s, errors.Join(err, n.drain())
}
