package report

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A Page is all that one run of the bench found.
type Page struct {
	Machine  Machine
	Date     time.Time
	Names    string // what the names are
	Fast     bool
	Outcomes []Outcome
}

// An Outcome is what became of a section: a result, or why there is none.
type Outcome struct {
	Section string
	Result  Result
	Err     error
	Took    time.Duration
}

// Save writes the page to a file, and its plots to the folder beside it of the same name without .md.
func (p Page) Save(file string) error {
	folder := strings.TrimSuffix(file, filepath.Ext(file))
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("make folder of plots: %w", err)
	}
	var errs []error
	for _, outcome := range p.Outcomes {
		for _, plot := range outcome.Result.Plots {
			errs = append(errs, save(filepath.Join(folder, plot.File), plot.WriteSVG))
		}
	}
	errs = append(errs, save(file, func(w io.Writer) error { return p.Write(w, filepath.Base(folder)) }))
	return errors.Join(errs...)
}

func save(file string, write func(io.Writer) error) error {
	var content bytes.Buffer
	if err := write(&content); err != nil {
		return fmt.Errorf("make %s: %w", file, err)
	}
	if err := os.WriteFile(file, content.Bytes(), 0o644); err != nil { //nolint:gosec // for everybody to read
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// Write writes the page as Markdown, which finds its plots in a folder.
func (p Page) Write(w io.Writer, folder string) error {
	m := &markdown{}
	m.paragraph("# What Nameward costs")
	m.paragraph("`make bench` wrote this page. It measures by turns: ours and what others do are sampled one after the other, round by round, on the same machine, so that what disturbs it disturbs both. Figures are medians with their quartiles. A nanosecond here is a guide; a ratio is a promise.")
	if p.Fast {
		m.paragraph("**This is a fast run (`make bench-fast`): few rounds and small sizes.** What it says of noise, it says loudly.")
	}
	p.failures(m)
	p.budgets(m)
	m.paragraph("## The machine")
	m.table(Table{Columns: []string{"what", "found"}, Rows: append(p.Machine.rows(),
		[]string{"names", p.Names}, []string{"date", p.Date.UTC().Format("2006-01-02 15:04 MST")})})
	for _, outcome := range p.Outcomes {
		m.section(outcome, folder)
	}
	_, err := io.WriteString(w, strings.TrimRight(m.String(), "\n")+"\n")
	return err
}

func (p Page) failures(m *markdown) {
	for _, outcome := range p.Outcomes {
		if outcome.Err != nil {
			m.paragraph(fmt.Sprintf("**Section [%s](#%[1]s) failed**, and its budgets are not in the table.", outcome.Section))
		}
	}
}

func (p Page) budgets(m *markdown) {
	m.paragraph("## Budgets")
	m.paragraph(fmt.Sprintf("Nanoseconds were promised for a machine on which an empty program takes %d ns hot, %d varied and %d in path. *By empty programs* is what was measured against the promise when both are counted in runs of an empty program: 1.00× would keep it on a machine of that speed.", EmptyHot, EmptyVaried, EmptyInPath))
	table := Table{Columns: []string{"work", "promise", "measured", "met", "by empty programs"}}
	var notes []string
	for _, outcome := range p.Outcomes {
		for _, budget := range outcome.Result.Budgets {
			table.Rows = append(table.Rows, []string{
				fmt.Sprintf("[%s](#%s)", budget.Work, outcome.Section), budget.Promise, budget.Measured, budget.verdict(), budget.relative(),
			})
			if budget.Note != "" {
				notes = append(notes, fmt.Sprintf("- *%s*: %s", budget.Work, budget.Note))
			}
		}
	}
	if len(table.Rows) == 0 {
		m.paragraph("None was measured.")
		return
	}
	m.table(table)
	if len(notes) > 0 {
		m.paragraph(strings.Join(notes, "\n"))
	}
}

func (b Budget) relative() string {
	if b.Relative == 0 {
		return "–"
	}
	return Ratio(b.Relative)
}

func (b Budget) verdict() string {
	if b.Met {
		return "yes"
	}
	return "**no**"
}

// markdown is a page on its way to text.
type markdown struct{ strings.Builder }

func (m *markdown) paragraph(text string) { fmt.Fprintf(m, "%s\n\n", text) }

func (m *markdown) section(o Outcome, folder string) {
	fmt.Fprintf(m, "<a id=\"%s\"></a>\n\n", o.Section)
	if o.Err != nil {
		m.paragraph(fmt.Sprintf("## %s: failed", o.Section))
		m.paragraph("```\n" + o.Err.Error() + "\n```")
		return
	}
	m.paragraph("## " + o.Result.Title)
	if o.Result.Text != "" {
		m.paragraph(strings.TrimSpace(o.Result.Text))
	}
	for _, plot := range o.Result.Plots {
		m.paragraph(fmt.Sprintf("![%s](%s/%s)", alternative.Replace(plot.Alternate), folder, plot.File))
	}
	for _, table := range o.Result.Tables {
		m.table(table)
	}
	m.paragraph(fmt.Sprintf("*Section `%s`, measured in %s.*", o.Section, o.Took.Round(time.Second)))
}

func (m *markdown) table(t Table) {
	if t.Caption != "" {
		m.paragraph("**" + t.Caption + "**")
	}
	m.row(t.Columns)
	m.WriteString("| --- |" + strings.Repeat(" ---: |", len(t.Columns)-1) + "\n")
	for _, row := range t.Rows {
		m.row(row)
	}
	m.WriteString("\n")
}

func (m *markdown) row(cells []string) {
	for _, cell := range cells {
		fmt.Fprintf(m, "| %s ", inCell.Replace(cell))
	}
	m.WriteString("|\n")
}

var (
	inCell      = strings.NewReplacer("|", `\|`, "\n", " ")
	alternative = strings.NewReplacer("[", "(", "]", ")", "\n", " ")
)
