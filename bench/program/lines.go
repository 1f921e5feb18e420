package program

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nameward/nameward/bench/report"
)

// lines are those of a plot, made size by size.
type lines struct{ list []report.Line }

func newLines(names ...string) *lines {
	l := &lines{}
	for _, name := range names {
		l.add(name)
	}
	return l
}

func (l *lines) add(name string) { l.list = append(l.list, report.Line{Name: name}) }

// points adds the size's point to each line of which there is a series.
func (l *lines) points(size int, s samples) {
	for i := range l.list {
		if series, measured := s[l.list[i].Name]; measured {
			l.list[i].Points = append(l.list[i].Points, point(size, series))
		}
	}
}

func (l *lines) of(name string) report.Line {
	return l.list[slices.IndexFunc(l.list, func(line report.Line) bool { return line.Name == name })]
}

// ends says in words where each line begins and ends.
func (l *lines) ends() string {
	var parts []string
	for _, line := range l.list {
		if len(line.Points) > 0 {
			first, last := line.Points[0], line.Points[len(line.Points)-1]
			parts = append(parts, fmt.Sprintf("%s: %s at %s, %s at %s", line.Name,
				report.Nanoseconds(first.Y), report.Thousands(first.X), report.Nanoseconds(last.Y), report.Thousands(last.X)))
		}
	}
	return strings.Join(parts, "; ") + "."
}

// title says in a sentence what a line's cost is at the first size and at the last.
func (l *lines) title(sentence, name string) string {
	points := l.of(name).Points
	if len(points) == 0 {
		return name
	}
	return fmt.Sprintf(sentence, report.Nanoseconds(points[0].Y), report.Nanoseconds(points[len(points)-1].Y))
}
