package report

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// Print writes a section's budgets and tables for a terminal.
func (o Outcome) Print(w io.Writer) error {
	var b strings.Builder
	if o.Failure != "" {
		fmt.Fprintf(&b, "%s failed after %s: %s\n\n", o.Section, o.Took.Round(time.Second), o.Failure)
		_, err := io.WriteString(w, b.String())
		return err
	}
	fmt.Fprintf(&b, "%s (%s, %s)\n\n", o.Result.Title, o.Section, o.Took.Round(time.Second))
	if len(o.Result.Budgets) > 0 {
		budgets := Table{Columns: []string{"budget", "promise", "measured", "met", "by empty programs", "others"}}
		for _, budget := range o.Result.Budgets {
			budgets.Rows = append(budgets.Rows, []string{budget.Work, budget.Promise, budget.Measured, strings.Trim(budget.verdict(), "*"), budget.relative(), budget.beside()})
		}
		budgets.print(&b)
	}
	for _, table := range o.Result.Tables {
		table.print(&b)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// print aligns the first column left and the others right.
func (t Table) print(b *strings.Builder) {
	if t.Caption != "" {
		fmt.Fprintf(b, "  %s\n", t.Caption)
	}
	widths := make([]int, len(t.Columns))
	rows := append([][]string{t.Columns}, t.Rows...)
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		for i, cell := range row {
			space := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				b.WriteString("  " + cell + space)
				continue
			}
			b.WriteString("  " + space + cell)
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
}
