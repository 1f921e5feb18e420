package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A label is a line's name beside its end.
type label struct {
	name         string
	parts        []string
	colour       int
	endX, endY   float64 // of the line
	top, centreY float64 // of the text
}

func (l *label) height() float64 { return float64(len(l.parts)) * lineHeight }

// names writes each line's name to the right of all, at the height at which it ends, or as near to it as
// the others' names let it be.
func (d *drawing) names() {
	var labels []*label
	for i, line := range d.lines {
		last := line.Points[len(line.Points)-1]
		labels = append(labels, &label{
			name: line.Name, parts: wrap(line.Name, textSize, labelWidth), colour: d.colour[i],
			endX: d.x.at(last.X), endY: d.y.at(last.Y),
		})
	}
	settle(labels, d.y.to-10, d.y.from+10)
	for _, l := range labels {
		x := d.x.to + 22
		d.stroke(fmt.Sprintf("lead c%d", l.colour), l.endX+6, l.endY, x-4, l.centreY)
		class := fmt.Sprintf("f%d", l.colour)
		if l.name == d.Ours {
			class += " name-ours"
		}
		for i, part := range l.parts {
			d.text(x, l.top+float64(i+1)*lineHeight-4, class, "start", part)
		}
	}
}

// settle places the labels from top to bottom, none above another, all between two heights.
func settle(labels []*label, top, bottom float64) {
	slices.SortStableFunc(labels, func(a, b *label) int { return cmp.Compare(a.endY, b.endY) })
	free := top
	for _, l := range labels {
		l.top = max(l.endY-l.height()/2, free)
		free = l.top + l.height() + 3
	}
	for _, l := range slices.Backward(labels) {
		l.top = min(l.top, bottom-l.height())
		bottom = l.top - 3
	}
	for _, l := range labels {
		l.centreY = l.top + l.height()/2
	}
}

// textWidth is about how many pixels a text takes in a common font.
func textWidth(text string, size float64) float64 { return float64(len([]rune(text))) * size * 0.54 }

// wrap breaks a text between words where it would be wider.
func wrap(text string, size, width float64) (parts []string) {
	part := ""
	for _, word := range strings.Fields(text) {
		longer := strings.TrimSpace(part + " " + word)
		if part != "" && textWidth(longer, size) > width {
			parts = append(parts, part)
			longer = word
		}
		part = longer
	}
	return append(parts, part)
}
