package report

import (
	"fmt"
	"strings"
)

// markdown is a page on its way to text.
type markdown struct{ strings.Builder }

func (m *markdown) paragraph(text string) { fmt.Fprintf(m, "%s\n\n", text) }

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
