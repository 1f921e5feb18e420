// Package report makes a page of what was measured: tables, plots, and whether each budget is met.
package report

import (
	"context"
	"io"
	"time"
)

// A Config says how thoroughly to measure, and on what.
type Config struct {
	Fast  bool          // all of it in less than 5 minutes
	Names []string      // domain names to fill tables with: real ones, or made alike; at least a million unless Fast
	Soak  time.Duration // how long what is measured for a while is measured; 0 for a minute
	Log   io.Writer
}

// A Section is a work that is measured, as one part of the page.
type Section struct {
	Name    string // by which it can be chosen on the command line
	Measure func(ctx context.Context, config Config) (Result, error)
}

// A Result is what a section's measurement found.
type Result struct {
	Title   string
	Text    string // Markdown: what was measured, how, and what it means to a reader who is new to this
	Budgets []Budget
	Tables  []Table
	Plots   []Plot
}

// A Budget is a row of the promise, and how it fared.
type Budget struct {
	Work     string // "DNS response, one A record, in path"
	Promise  string // "≤ 1,000 ns"
	Measured string // "412 ns (380–450)"
	Met      bool
	Note     string  // what stands in the way, if it is not met
	Relative float64 // measured ÷ promised, each in runs of an empty program; 0: that says nothing
}

// What an empty program took where the promises were made, in nanoseconds.
const (
	EmptyHot    = 16
	EmptyVaried = 51
	EmptyInPath = 32
)

// Relative holds what was measured against what was promised, each in runs of an empty program on its machine.
func Relative(measured, emptyHere, promised, emptyThere float64) float64 {
	return measured / emptyHere / (promised / emptyThere)
}

// A Table has cells of ready text; Markdown aligns all but the first column right.
type Table struct {
	Caption string
	Columns []string
	Rows    [][]string
}

// A Plot shows cost against size, a line a variant, each with its spread.
type Plot struct {
	File         string // its name without a folder, such as "names.svg"
	Title        string
	X, Y         string // what the axes say, with units
	LogX, LogY   bool
	FormatX      Format // of the numbers at the axis; nil: Count
	FormatY      Format
	Lines        []Line
	Ours         string // the line that stands out
	Alternate    string // what the picture says, for those who cannot see it
	StartYAtZero bool
}

// A Line is a variant's cost at each size.
type Line struct {
	Name   string
	Points []Point
}

// A Point is a median with its quartiles.
type Point struct{ X, Y, Low, High float64 }
