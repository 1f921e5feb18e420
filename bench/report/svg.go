package report

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
)

// The picture's measures, in pixels.
const (
	plotWidth  = 820
	plotHeight = 456
	plotLeft   = 76   // of the lines
	plotBottom = 396  // of the lines
	titleSize  = 17.0 // semi-bold letters are a seventh wider
	textSize   = 13
	lineHeight = 16
	labelWidth = 190 // of a line's name, before it is broken
)

// The colours tell the lines apart in print and for eyes that mix up red and green; the marks do so
// without any colour. They follow the reader's choice of a light or a dark page.
const plotStyle = `
  text { font-family: system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; font-size: 13px; fill: #1f2328 }
  .page { fill: #ffffff; stroke: #d1d9e0 } .title { font-size: 17px; font-weight: 600 } .quiet { fill: #59636e }
  .grid { stroke: #d1d9e0; stroke-width: 1 } .minor { stroke: #eff2f5; stroke-width: 1 } .axis { stroke: #59636e; stroke-width: 1 }
  .line { fill: none; stroke-width: 1.75; stroke-linejoin: round } .ours { stroke-width: 3.5 } .name-ours { font-weight: 700 }
  .band { stroke: none; opacity: 0.16 } .lead { stroke-width: 1; stroke-dasharray: 1 3 }
  .c0 { stroke: #0969da } .f0 { fill: #0969da } .c1 { stroke: #b35900 } .f1 { fill: #b35900 } .c2 { stroke: #1a7f37 } .f2 { fill: #1a7f37 }
  .c3 { stroke: #8250df } .f3 { fill: #8250df } .c4 { stroke: #bf3989 } .f4 { fill: #bf3989 } .c5 { stroke: #6e7781 } .f5 { fill: #6e7781 }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc } .page { fill: #0d1117; stroke: #3d444d } .quiet { fill: #9198a1 }
    .grid { stroke: #3d444d } .minor { stroke: #21262d } .axis { stroke: #9198a1 } .band { opacity: 0.26 }
    .c0 { stroke: #58a6ff } .f0 { fill: #58a6ff } .c1 { stroke: #f0883e } .f1 { fill: #f0883e } .c2 { stroke: #3fb950 } .f2 { fill: #3fb950 }
    .c3 { stroke: #bc8cff } .f3 { fill: #bc8cff } .c4 { stroke: #ff7bba } .f4 { fill: #ff7bba } .c5 { stroke: #9198a1 } .f5 { fill: #9198a1 }
  }
`

// colours is how many plotStyle has: the first is ours.
const colours = 6

// WriteSVG draws the plot.
func (p Plot) WriteSVG(w io.Writer) error {
	d := newDrawing(p)
	d.frame()
	d.grid()
	// Ours comes last, so that it lies above the others.
	for i, line := range d.lines {
		if line.Name != p.Ours {
			d.line(i, line)
		}
	}
	for i, line := range d.lines {
		if line.Name == p.Ours {
			d.line(i, line)
		}
	}
	d.names()
	d.printf("</svg>\n")
	_, err := io.WriteString(w, d.String())
	return err
}

// drawing is a plot on its way to text.
type drawing struct {
	strings.Builder
	Plot
	lines   []Line // those with points
	colour  []int
	title   []string
	x, y    axis
	formatY Format
}

func newDrawing(p Plot) *drawing {
	d := &drawing{Plot: p, formatY: Count, title: wrap(p.Title, titleSize*1.15, plotWidth-40)}
	if p.NanosecondsY {
		d.formatY = Nanoseconds
	}
	var xs, ys []float64
	others, widest := 0, 0.0
	for _, line := range p.Lines {
		if len(line.Points) == 0 {
			continue
		}
		for _, point := range line.Points {
			xs, ys = append(xs, point.X), append(ys, point.Y, point.Low, point.High)
		}
		for _, part := range wrap(line.Name, textSize, labelWidth) {
			widest = max(widest, textWidth(part, textSize))
		}
		colour := 0
		if line.Name != p.Ours {
			colour = 1 + others%(colours-1)
			others++
		}
		d.lines, d.colour = append(d.lines, line), append(d.colour, colour)
	}
	top := 56 + float64(len(d.title))*(titleSize+5)
	d.x = newAxis(xs, p.LogX, false, plotLeft, plotWidth-widest-44)
	d.y = newAxis(ys, p.LogY, p.StartYAtZero, plotBottom, top)
	return d
}

func (d *drawing) printf(format string, args ...any) { fmt.Fprintf(d, format, args...) }

func (d *drawing) text(x, y float64, class, anchor, text string) {
	d.printf(`<text x="%.1f" y="%.1f" class="%s" text-anchor="%s">%s</text>`+"\n", x, y, class, anchor, escape(text))
}

func (d *drawing) stroke(class string, x1, y1, x2, y2 float64) {
	d.printf(`<line class="%s" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`+"\n", class, x1, y1, x2, y2)
}

func (d *drawing) frame() {
	d.printf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%[1]d" height="%d" role="img" aria-labelledby="title desc">`+"\n", plotWidth, plotHeight, plotHeight)
	d.printf("<title id=\"title\">%s</title>\n<desc id=\"desc\">%s</desc>\n<style>%s</style>\n", escape(d.Title), escape(d.Alternate), plotStyle)
	d.printf(`<rect class="page" x="0.5" y="0.5" width="%d" height="%d" rx="8"/>`+"\n", plotWidth-1, plotHeight-1)
	for i, part := range d.title {
		d.text(20, 32+float64(i)*(titleSize+5), "title", "start", part)
	}
}

func (d *drawing) grid() {
	for _, v := range d.x.minor {
		d.stroke("minor", d.x.at(v), d.y.from, d.x.at(v), d.y.to)
	}
	for _, v := range d.y.minor {
		d.stroke("minor", d.x.from, d.y.at(v), d.x.to, d.y.at(v))
	}
	for _, v := range d.x.ticks {
		d.stroke("grid", d.x.at(v), d.y.from, d.x.at(v), d.y.to)
		d.text(d.x.at(v), d.y.from+20, "quiet", "middle", Count(v))
	}
	for _, v := range d.y.ticks {
		d.stroke("grid", d.x.from, d.y.at(v), d.x.to, d.y.at(v))
		d.text(d.x.from-8, d.y.at(v)+4.5, "quiet", "end", d.formatY(v))
	}
	d.stroke("axis", d.x.from, d.y.from, d.x.to, d.y.from)
	d.stroke("axis", d.x.from, d.y.from, d.x.from, d.y.to)
	d.text(20, d.y.to-18, "quiet", "start", d.Y)
	d.text((d.x.from+d.x.to)/2, d.y.from+44, "quiet", "middle", d.X)
}

// line draws the quartiles as a band, the medians as a line, and a mark at each size.
func (d *drawing) line(i int, line Line) {
	colour := d.colour[i]
	var there, back, middle []string
	for _, p := range line.Points {
		x := d.x.at(p.X)
		there = append(there, fmt.Sprintf("%.1f,%.1f", x, d.y.at(p.High)))
		back = append([]string{fmt.Sprintf("%.1f,%.1f", x, d.y.at(p.Low))}, back...)
		middle = append(middle, fmt.Sprintf("%.1f,%.1f", x, d.y.at(p.Y)))
	}
	d.printf(`<polygon class="band f%d" points="%s %s"/>`+"\n", colour, strings.Join(there, " "), strings.Join(back, " "))
	class, radius := "line", 3.5
	if line.Name == d.Ours {
		class, radius = "line ours", 5
	}
	d.printf(`<polyline class="%s c%d" points="%s"/>`+"\n", class, colour, strings.Join(middle, " "))
	for _, p := range line.Points {
		d.whisker(colour, p)
		d.mark(colour, d.x.at(p.X), d.y.at(p.Y), radius)
	}
}

// whisker shows the quartiles of one size, which no band shows where there is but one.
func (d *drawing) whisker(colour int, p Point) {
	x, low, high := d.x.at(p.X), d.y.at(p.Low), d.y.at(p.High)
	if low-high < 1 {
		return
	}
	d.stroke(fmt.Sprintf("c%d", colour), x, low, x, high)
	d.stroke(fmt.Sprintf("c%d", colour), x-3, low, x+3, low)
	d.stroke(fmt.Sprintf("c%d", colour), x-3, high, x+3, high)
}

// mark has a shape for each colour.
func (d *drawing) mark(colour int, x, y, r float64) {
	switch colour {
	case 1, 4:
		d.printf(`<rect class="f%d" x="%.1f" y="%.1f" width="%.1f" height="%.1f"/>`+"\n", colour, x-r, y-r, 2*r, 2*r)
	case 2, 5:
		d.printf(`<polygon class="f%d" points="%.1f,%.1f %.1f,%.1f %.1f,%.1f"/>`+"\n", colour, x, y-1.3*r, x-1.2*r, y+r, x+1.2*r, y+r)
	default:
		d.printf(`<circle class="f%d" cx="%.1f" cy="%.1f" r="%.1f"/>`+"\n", colour, x, y, r)
	}
}

func escape(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // a Builder takes everything
	return b.String()
}
