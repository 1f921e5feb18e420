package program

import (
	"context"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/nameward/nameward/bench/report"
	"github.com/nameward/nameward/bpf"
)

// Promises of kernel memory, in bytes.
const (
	patternPromise = 100
	mappingPromise = 128
)

func measureKernel(ctx context.Context, config report.Config) (result report.Result, err error) {
	n, err := newNode(agentPatterns, effortOf(config))
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	return n.kernel(ctx, config.Names, 100_000)
}

// kernel tells what programs and maps take with so many patterns.
func (n *node) kernel(ctx context.Context, names []string, count int) (result report.Result, err error) {
	list, err := know(names[:count])
	if err != nil {
		return result, err
	}
	patterns := patternsOf(list)
	if err := n.apply(ctx, oneSet(patterns)); err != nil {
		return result, err
	}
	baseline, err := newLPM(patterns, lpmBuckets[0])
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, baseline.Close()) }()
	m := &memory{node: n}
	patternBytes := m.of(bpf.DatapathMapNameIndex, bpf.DatapathMapNameCells)
	mappings := m.of(bpf.DatapathMapMappings)
	answers := m.of(bpf.DatapathMapAnswers)
	trie := m.bytes(baseline.LpmNames)
	table := report.Table{
		Caption: fmt.Sprintf("Kernel memory, by the kernel's account, with %s patterns", report.Thousands(float64(count))),
		Columns: []string{"what", "in all", "room for", "a unit of that room", "in use", "a unit in use"},
		Rows: [][]string{
			memoryRow("domain patterns: index and names", patternBytes, agentPatterns, count),
			memoryRow("LPM trie of reversed names", trie, count, count),
			memoryRow("live mappings", mappings, agentMappings, 0),
			memoryRow("answers that the agent was told", answers, int(n.maps[bpf.DatapathMapAnswers].MaxEntries()), 0),
			memoryRow("outstanding questions", m.of(bpf.DatapathMapQuestions), agentQueries, 0),
		},
	}
	others := report.Table{Caption: "Every map of the node", Columns: []string{"map", "kind", "entries at most", "kernel memory"}}
	total := 0.0
	for _, name := range n.mapNames() {
		bytes := m.of(name)
		total += bytes
		others.Rows = append(others.Rows, []string{name, n.maps[name].Type().String(), report.Thousands(float64(n.maps[name].MaxEntries())), report.Bytes(bytes)})
	}
	others.Rows = append(others.Rows, []string{"all", "", "", report.Bytes(total)})
	result = report.Result{
		Title: "What it takes of the kernel",
		Text: "As the kernel accounts for the maps of a node with the agent's defaults. Most maps take their memory when they are made, for all that they have room for; what that room costs a unit is the price of a pattern or a mapping. " +
			"A pattern's memory serves both generations of rules. An LPM trie takes memory as it grows; the kernel counts its entries here, and not the nodes between them.\n\n" +
			"Before the kernel takes a program it follows every path through it, and gives up after a million instructions. How near a program is to that limit says how much it can still grow, and how long loading takes.",
		Budgets: []report.Budget{
			patternBudget(patternBytes, trie, count),
			bytesWithin("kernel memory a live mapping, of all that there is room for", mappingPromise, mappings/agentMappings, mappingNote),
		},
		Tables: []report.Table{table, others},
	}
	verified, err := n.verified()
	if err != nil {
		return result, err
	}
	result.Tables = append(result.Tables, verified)
	return result, errors.Join(m.errs...)
}

// memory asks the kernel for what maps take.
type memory struct {
	*node
	errs []error
}

func (m *memory) of(names ...string) (sum float64) {
	for _, name := range names {
		sum += m.bytes(m.maps[name])
	}
	return sum
}

func (m *memory) bytes(of *ebpf.Map) float64 {
	info, err := of.Info()
	if err != nil {
		m.errs = append(m.errs, fmt.Errorf("inspect map: %w", err))
		return 0
	}
	bytes, _ := info.Memlock() // not known is also 0, what a trie without entries takes
	return float64(bytes)
}

func memoryRow(what string, bytes float64, room, used int) []string {
	row := []string{what, report.Bytes(bytes), report.Thousands(float64(room)), report.Bytes(bytes / float64(room)), "–", "–"}
	if used > 0 {
		row[4], row[5] = report.Thousands(float64(used)), report.Bytes(bytes/float64(used))
	}
	return row
}

// What stands in the way of the promises.
const (
	patternNote = "A name has a cell of 64 bytes, and the index 2.48 slots of 8 for each pattern: with fewer, some bucket is full before the table is. A quarter more cells are there for long names, and for a rule set that takes the place of another. " +
		"Patterns of the same name (`example.com` and `*.example.com`) share a cell."
	mappingNote = "A cell takes 64 bytes, and there are 15 for 8 addresses, so that each finds one."
)

// patternBudget says beside the price of room for a pattern also what those take that are there.
func patternBudget(bytes, trie float64, count int) report.Budget {
	b := bytesWithin("kernel memory a domain pattern, of all that there is room for", patternPromise, bytes/agentPatterns, patternNote)
	b.Measured += fmt.Sprintf("; %s with %s in use", report.Bytes(bytes/float64(count)), report.Thousands(float64(count)))
	b.Beside = "LPM trie of reversed names: " + report.Bytes(trie/float64(count))
	return b
}

func bytesWithin(work string, most, bytes float64, note string) report.Budget {
	budget := report.Budget{Work: work, Promise: "≤ " + report.Bytes(most), Measured: report.Bytes(bytes), Met: bytes <= most}
	if !budget.Met {
		budget.Note = note
	}
	return budget
}
