package main

import (
	"strings"
	"unicode/utf8"
)

// table is text in aligned columns under a header.
type table struct {
	header []string
	rows   [][]cell
	// minimum widths of the columns, for rows that are printed before the widest is known.
	minimum []int
}

// cell is one field of a table.
type cell struct {
	text  string
	style style
}

func plain(text string) cell { return cell{text: text} }

func (t *table) add(cells ...cell) { t.rows = append(t.rows, cells) }

// addPlain adds a row without styles.
func (t *table) addPlain(texts ...string) {
	row := make([]cell, len(texts))
	for i, text := range texts {
		row[i] = plain(text)
	}
	t.add(row...)
}

// render returns the lines. Without a header only the rows are printed.
func (t *table) render(paint painter) string {
	widths := t.widths()
	var out strings.Builder
	if len(t.header) > 0 {
		row := make([]cell, len(t.header))
		for i, title := range t.header {
			row[i] = cell{title, styleTitle}
		}
		renderRow(&out, row, widths, paint)
	}
	for _, row := range t.rows {
		renderRow(&out, row, widths, paint)
	}
	return out.String()
}

func (t *table) widths() []int {
	var widths []int
	fit := func(column, width int) {
		for len(widths) <= column {
			widths = append(widths, 0)
		}
		widths[column] = max(widths[column], width)
	}
	for i, width := range t.minimum {
		fit(i, width)
	}
	for i, title := range t.header {
		fit(i, utf8.RuneCountInString(title))
	}
	for _, row := range t.rows {
		for i, cell := range row {
			fit(i, utf8.RuneCountInString(cell.text))
		}
	}
	return widths
}

func renderRow(out *strings.Builder, row []cell, widths []int, paint painter) {
	last := len(row) - 1
	for last >= 0 && row[last].text == "" {
		last--
	}
	for i, cell := range row[:last+1] {
		out.WriteString(paint.apply(cell.style, cell.text))
		// No line ends in blanks: they get in the way of copying and of comparing.
		if i < last {
			out.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell.text)+2))
		}
	}
	out.WriteByte('\n')
}
