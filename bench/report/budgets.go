package report

import (
	"fmt"
	"slices"
	"strings"
)

// budgets are the promises of all sections, and how they fared.
type budgets struct {
	all   []told
	mixed bool // not all of one commit
}

func (b budgets) write(m *markdown) {
	m.paragraph("## Budgets")
	count, met := b.count()
	if count == 0 {
		m.paragraph("None was measured.")
		return
	}
	m.paragraph(fmt.Sprintf("%d of %d promises are met. Each row leads to what was measured and how. *Others* is what else there is took in the same run.", met, count))
	m.paragraph(fmt.Sprintf("Nanoseconds were promised for a machine on which an empty program takes %d ns hot, %d varied and %d in path. *By empty programs* is what was measured against the promise when both are counted in runs of an empty program: 1.00× would keep it on a machine of that speed.", EmptyHot, EmptyVaried, EmptyInPath))
	for _, half := range b.halves() {
		if half != "" {
			m.paragraph("### " + half)
		}
		m.table(b.table(half))
	}
	if reasons := b.reasons(); len(reasons) > 0 {
		m.paragraph("### What stands in the way of the others")
		m.paragraph(strings.Join(reasons, "\n"))
	}
}

func (b budgets) count() (count, met int) {
	for _, t := range b.all {
		for _, budget := range t.Result.Budgets {
			count++
			if budget.Met {
				met++
			}
		}
	}
	return count, met
}

func (b budgets) halves() (halves []string) {
	for _, t := range b.all {
		if len(t.Result.Budgets) > 0 && !slices.Contains(halves, t.half) {
			halves = append(halves, t.half)
		}
	}
	return halves
}

func (b budgets) table(half string) Table {
	table := Table{Columns: []string{"work", "promise", "measured", "met", "by empty programs", "others"}}
	if b.mixed {
		table.Columns = append(table.Columns, "commit")
	}
	for _, t := range b.all {
		if t.half != half {
			continue
		}
		for _, budget := range t.Result.Budgets {
			row := []string{
				fmt.Sprintf("[%s](#%s)", budget.Work, t.Section), budget.Promise, budget.Measured, budget.verdict(), budget.relative(), budget.beside(),
			}
			if b.mixed {
				row = append(row, t.run.Commit)
			}
			table.Rows = append(table.Rows, row)
		}
	}
	return table
}

// reasons are why promises are not met, each with all of which it is true.
func (b budgets) reasons() (list []string) {
	var order []string
	works := map[string][]string{}
	for _, t := range b.all {
		for _, budget := range t.Result.Budgets {
			if budget.Met {
				continue
			}
			note := budget.Note
			if note == "" {
				note = "this run does not tell why."
			}
			if works[note] == nil {
				order = append(order, note)
			}
			works[note] = append(works[note], "*"+budget.Work+"*")
		}
	}
	for _, note := range order {
		list = append(list, fmt.Sprintf("- %s: %s", strings.Join(works[note], "; "), note))
	}
	return list
}

func (b Budget) relative() string {
	if b.Relative == 0 {
		return "–"
	}
	return Ratio(b.Relative)
}

func (b Budget) beside() string {
	if b.Beside == "" {
		return "–"
	}
	return b.Beside
}

func (b Budget) verdict() string {
	if b.Met {
		return "yes"
	}
	return "**no**"
}
