package program

import (
	"context"
	"errors"
	"fmt"

	"github.com/nameward/nameward/bench/measure"
	"github.com/nameward/nameward/bench/report"
	"github.com/nameward/nameward/bpf"
)

const (
	ours       = "Nameward"
	oursFresh  = "Nameward, address not seen before"
	oursBefore = "Nameward, question"
	lineEmpty  = "empty program"
)

// variedBudgets are the promises, by names known.
var variedBudgets = map[int]float64{100: 450, 65_536: 700, 1_000_000: 1000}

// variedNote is what taking parts away says: one address for all, one name for all, names that nobody mentions.
const variedNote = "What a varied response takes beyond a hot one is memory that is in no cache: the name's index and its cell, " +
	"the address's cell in the table of mappings, and what was told of the question. They are fetched at once (ADR 57), so it is one wait, and the ways to their pages."

func measureNames(ctx context.Context, config report.Config) (result report.Result, err error) {
	n, err := newNode(agentPatterns, effortOf(config))
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	return n.names(ctx, config.Names, sizes(config, []int{100, 1000, 10_000, 65_536, 100_000, 1_000_000}, []int{100, 10_000, 65_536}))
}

func (n *node) names(ctx context.Context, names []string, counts []int) (result report.Result, err error) {
	lines := newLines(ours, oursFresh, lineEmpty)
	table := report.Table{Columns: []string{"names known", ours, oursFresh, "the question before", lineEmpty}}
	for _, buckets := range lpmBuckets {
		table.Columns = append(table.Columns, lpmName(buckets))
		lines.add(lpmName(buckets))
	}
	for _, count := range counts {
		s, err := n.withRoom(ctx, names, count)
		if err != nil {
			return result, fmt.Errorf("%d names: %w", count, err)
		}
		lines.points(count, s)
		row := []string{report.Thousands(float64(count)), ns(s[ours]), ns(s[oursFresh]), ns(s[oursBefore]), ns(s[lineEmpty])}
		for _, buckets := range lpmBuckets {
			row = append(row, ns(s[lpmName(buckets)]))
		}
		table.Rows = append(table.Rows, row)
		if most, promised := variedBudgets[count]; promised {
			result.Budgets = append(result.Budgets,
				s.beside("", within(fmt.Sprintf("DNS response, one A record, varied, %s names known", report.Thousands(float64(count))), most, s[ours], variedNote, s[lineEmpty], report.EmptyVaried)))
		}
	}
	result.Budgets = append(result.Budgets, flat(fmt.Sprintf("DNS response, varied, from %s to %s names known", report.Thousands(float64(counts[0])), report.Thousands(float64(counts[len(counts)-1]))), lines.of(ours), variedNote))
	result.Title = "A DNS response against the number of names known, program alone"
	result.Text = fmt.Sprintf("%s different responses for names that are known, each run once, so that tables and packets are in no cache but by chance. Each was asked for before, and all others came in between. "+
		"An address that was learned before is prolonged; one that was not needs a new entry and an event to the agent.", report.Thousands(float64(n.packets)))
	result.Tables = []report.Table{table}
	result.Plots = []report.Plot{{
		File: "program-names.svg", Title: lines.title("A DNS response takes %s with 100 names known and %s with the most", ours),
		X: "names known", Y: "time of the program for a response with one address", LogX: true, LogY: true, NanosecondsY: true,
		Lines: lines.list, Ours: ours,
		Alternate: "Time of one DNS response against the number of names known. " + lines.ends(),
	}}
	return result, nil
}

// withRoom measures on a node that has room for so many names: this one, or a larger one.
func (n *node) withRoom(ctx context.Context, names []string, count int) (s samples, err error) {
	if count <= agentPatterns {
		return n.namesKnown(ctx, names, count)
	}
	larger, err := newNode(count, n.effort)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, larger.close()) }()
	return larger.namesKnown(ctx, names, count)
}

// namesKnown measures with so many names known.
func (n *node) namesKnown(ctx context.Context, names []string, count int) (s samples, err error) {
	if count >= len(names) {
		return nil, fmt.Errorf("there are only %d names", len(names))
	}
	list, err := know(names[:count])
	if err != nil {
		return nil, err
	}
	patterns := patternsOf(list)
	if err := n.apply(ctx, oneSet(patterns)); err != nil {
		return nil, err
	}
	baselines, err := newLPMs(patterns)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, baselines.close()) }()
	again, err := n.lookups(list, 0)
	if err != nil {
		return nil, err
	}
	fresh, err := n.lookups(list, n.packets)
	if err != nil {
		return nil, err
	}
	variants := []measure.Variant{
		varied(ours, n.response, responsesOf(again), func() error { return n.askAll(again) }),
		varied(oursFresh, n.response, responsesOf(fresh), n.withFreshAddresses(fresh)),
		varied(oursBefore, n.query, queriesOf(again), nothing),
		varied(lineEmpty, n.hot.Empty, responsesOf(again), nothing),
	}
	for i, l := range baselines {
		if err := l.check(again[0].response, n.first); err != nil {
			return nil, err
		}
		variants = append(variants, varied(lpmName(lpmBuckets[i]), l.LpmResponse, packetsFor(lpmBuckets[i], responsesOf(again)), nothing))
	}
	s, err = interleave(ctx, n.variedRounds, variants...)
	return s, errors.Join(err, n.check())
}

// lookups makes lookups of known names, spread over all that there are, and has the node learn from them.
func (n *node) lookups(list []known, from int) (all []lookup, err error) {
	for i := range n.packets {
		at := spread(i, n.packets, len(list))
		// A name has one address, so that each answer says what the one before said.
		name := list[at].name
		l, err := newLookup(client, from+i, name, records(name, plus(n.first, at), 1)...)
		if err != nil {
			return nil, err
		}
		if err := n.resolve(l, bpf.DatapathCounterCOUNTER_LEARNED); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, l)
	}
	return all, n.drain()
}

func (n *node) askAll(all []lookup) error {
	for _, l := range all {
		if err := n.ask(l); err != nil {
			return err
		}
	}
	return n.drain()
}

// withFreshAddresses gives every response an address that it never had, before each sample.
func (n *node) withFreshAddresses(all []lookup) func() error {
	next := plus(n.first, addressesOfRules/2)
	return func() error {
		next = plus(next, 1<<14)
		for i, l := range all {
			l.setAddress(plus(next, i))
		}
		return n.askAll(all)
	}
}

// packetsFor takes a twentieth of the packets for the baseline whose scan takes a fifth of a millisecond.
func packetsFor(buckets uint32, packets [][]byte) (some [][]byte) {
	if buckets <= lpmBuckets[0] {
		return packets
	}
	for i := 0; i < len(packets); i += 20 {
		some = append(some, packets[i])
	}
	return some
}

func responsesOf(all []lookup) (packets [][]byte) {
	for _, l := range all {
		packets = append(packets, l.response)
	}
	return packets
}

func queriesOf(all []lookup) (packets [][]byte) {
	for _, l := range all {
		packets = append(packets, l.query)
	}
	return packets
}
