package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// A Page is all that there is to tell: what one run found, or several of different sections.
type Page struct {
	Sections []Section // all that there are, in the order of the page
	Runs     []Run     // the oldest first; no two of them have the same section
}

// A told outcome is one of a run.
type told struct {
	Outcome
	run  Run
	half string
}

// told returns what is known of each section in turn, and the names of those of which nothing is.
func (p Page) told() (all []told, missing []string) {
	for _, section := range p.Sections {
		found := false
		for _, run := range p.Runs {
			for _, outcome := range run.Outcomes {
				if outcome.Section == section.Name {
					all, found = append(all, told{outcome, run, section.Half}), true
				}
			}
		}
		if !found {
			missing = append(missing, "`"+section.Name+"`")
		}
	}
	return all, missing
}

// newest is the run that the others are held against.
func (p Page) newest() Run {
	if len(p.Runs) == 0 {
		return Run{}
	}
	return p.Runs[len(p.Runs)-1]
}

// mixed says whether not all was measured of the same.
func (p Page) mixed() bool {
	return slices.ContainsFunc(p.Runs, func(r Run) bool { return !r.like(p.newest()) })
}

// Write writes the page as Markdown, which finds its plots in a folder.
func (p Page) Write(w io.Writer, folder string) error {
	all, missing := p.told()
	m := &markdown{}
	m.paragraph("# What Nameward costs")
	m.paragraph(fmt.Sprintf("`make bench` wrote this page, from [what was measured](%s/%s). It measures by turns: ours and what others do are sampled one after the other, round by round, on the same machine, so that what disturbs it disturbs both. Figures are medians with their quartiles. A nanosecond here is a guide; a ratio is a promise.", folder, resultsFile))
	if p.newest().Fast {
		m.paragraph("**This is a fast run (`make bench-fast`): few rounds and small sizes.** What it says of noise, it says loudly.")
	}
	p.mixture(m)
	for _, t := range all {
		if t.Failure != "" {
			m.paragraph(fmt.Sprintf("**Section [%s](#%[1]s) failed**, and its budgets are not in the table.", t.Section))
		}
	}
	if len(missing) > 0 {
		m.paragraph(fmt.Sprintf("**Not measured, so that their budgets are not in the table**: %s.", strings.Join(missing, ", ")))
	}
	budgets{all: all, mixed: p.mixed()}.write(m)
	p.machines(m)
	for _, t := range all {
		m.section(t, p.newest(), folder)
	}
	_, err := io.WriteString(w, strings.TrimRight(m.String(), "\n")+"\n")
	return err
}

// mixture says which results are not of the newest run's programs and machine.
func (p Page) mixture(m *markdown) {
	if !p.mixed() {
		return
	}
	var others []string
	for _, run := range p.Runs {
		if !run.like(p.newest()) {
			others = append(others, fmt.Sprintf("- %s: %s", run.other(p.newest()), run.sections()))
		}
	}
	m.paragraph(fmt.Sprintf("**Not all figures here are of one commit on one machine.** The newest are of `%s` (%s); these are of others, and say so where they stand:", p.newest().Commit, p.newest().date()))
	m.paragraph(strings.Join(others, "\n"))
}

// other says what a run measured that is not like another.
func (r Run) other(newest Run) string {
	text := fmt.Sprintf("`%s` (%s)", r.Commit, r.date())
	if !r.Machine.like(newest.Machine) {
		text += " on another machine"
	}
	return text
}

// machines has a column for each run.
func (p Page) machines(m *markdown) {
	m.paragraph("## The machine")
	table := Table{Columns: []string{"what"}}
	var order []string
	found := map[string][]string{}
	for i, run := range p.Runs {
		table.Columns = append(table.Columns, run.date())
		rows := append(run.Machine.rows(), []string{"Nameward", run.Commit}, []string{"names", run.Names})
		if len(p.Runs) > 1 {
			rows = append(rows, []string{"sections", run.sections()})
		}
		for _, row := range rows {
			if found[row[0]] == nil {
				order = append(order, row[0])
				found[row[0]] = slices.Repeat([]string{"–"}, len(p.Runs))
			}
			found[row[0]][i] = row[1]
		}
	}
	for _, what := range order {
		table.Rows = append(table.Rows, append([]string{what}, found[what]...))
	}
	m.table(table)
}

func (m *markdown) section(t told, newest Run, folder string) {
	fmt.Fprintf(m, "<a id=\"%s\"></a>\n\n", t.Section)
	measured := fmt.Sprintf("*Section `%s`, measured in %s: `%s`, %s.*", t.Section, t.Took.Round(time.Second), t.run.Commit, t.run.date())
	if t.Failure != "" {
		m.paragraph(fmt.Sprintf("## %s: failed", t.Section))
		m.paragraph("```\n" + t.Failure + "\n```")
		m.paragraph(measured)
		return
	}
	m.paragraph("## " + t.Result.Title)
	if !t.run.like(newest) {
		m.paragraph(fmt.Sprintf("**These figures are of %s, not of the newest on this page, `%s`.**", t.run.other(newest), newest.Commit))
	}
	if t.Result.Text != "" {
		m.paragraph(strings.TrimSpace(t.Result.Text))
	}
	for _, plot := range t.Result.Plots {
		m.paragraph(fmt.Sprintf("![%s](%s/%s)", alternative.Replace(plot.Alternate), folder, plot.File))
	}
	for _, table := range t.Result.Tables {
		m.table(table)
	}
	m.paragraph(measured)
}
