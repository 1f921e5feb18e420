// Package report makes a page of what was measured: tables, plots, and whether each budget is met. What runs found is
// kept beside the page, so that a run of some sections takes the place of those alone.
package report

import (
	"context"
	"io"
	"slices"
	"time"
)

// A Config says how thoroughly to measure, and on what.
type Config struct {
	Fast  bool          // all of it in less than 5 minutes
	Names []string      // domain names to fill tables with: real ones, or made alike; at least a million unless Fast
	Soak  time.Duration // how long what is measured for a while is measured; 0 for a minute
	Log   io.Writer

	Programs string // directory with all of package programs, for sections that run processes
}

// A Section is a work that is measured, as one part of the page.
type Section struct {
	Name      string // by which it can be chosen on the command line
	Half      string // of the system, with whose promises its own are listed
	Processes bool   // it runs programs in processes of their own
	Measure   func(ctx context.Context, config Config) (Result, error)
}

// Of says which half of the system sections are about.
func Of(half string, lists ...[]Section) (all []Section) {
	for _, section := range slices.Concat(lists...) {
		section.Half = half
		all = append(all, section)
	}
	return all
}

// A Result is what a section's measurement found.
type Result struct {
	Title   string   `json:"title"`
	Text    string   `json:"text"` // Markdown: what was measured, how, and what it means to a reader who is new to this
	Budgets []Budget `json:"budgets"`
	Tables  []Table  `json:"tables"`
	Plots   []Plot   `json:"plots,omitempty"`
}

// A Budget is a row of the promise, and how it fared. It can be read by itself.
type Budget struct {
	Work     string  `json:"work"`    // "DNS response, one A record, in path"
	Promise  string  `json:"promise"` // "≤ 1,000 ns"
	Measured string  `json:"measured"`
	Met      bool    `json:"met"`
	Beside   string  `json:"beside,omitempty"`   // what others took in the same run
	Note     string  `json:"note,omitempty"`     // what stands in the way, if it is not met
	Relative float64 `json:"relative,omitempty"` // measured ÷ promised, each in runs of an empty program; 0: that says nothing
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
	Caption string     `json:"caption,omitempty"`
	Columns []string   `json:"columns"`
	Rows    [][]string `json:"rows"`
}

// A Plot shows cost against size, a line a variant, each with its spread.
type Plot struct {
	File         string `json:"file"` // its name without a folder, such as "names.svg"
	Title        string `json:"title"`
	X            string `json:"x"` // what the axes say, with units
	Y            string `json:"y"`
	LogX         bool   `json:"logX,omitempty"`
	LogY         bool   `json:"logY,omitempty"`
	NanosecondsY bool   `json:"nanosecondsY,omitempty"` // the numbers of the axis are written as times
	Lines        []Line `json:"lines"`
	Ours         string `json:"ours,omitempty"` // the line that stands out
	Alternate    string `json:"alternate"`      // what the picture says, for those who cannot see it
	StartYAtZero bool   `json:"startYAtZero,omitempty"`
}

// A Line is a variant's cost at each size.
type Line struct {
	Name   string  `json:"name"`
	Points []Point `json:"points"`
}

// A Point is a median with its quartiles.
type Point struct {
	X    float64 `json:"x"`
	Y    float64 `json:"y"`
	Low  float64 `json:"low"`
	High float64 `json:"high"`
}
