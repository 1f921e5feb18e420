package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
)

func samplePlot() Plot {
	line := func(name string, factor, power float64, sizes ...float64) Line {
		l := Line{Name: name}
		for _, n := range sizes {
			y := factor * math.Pow(n, power)
			l.Points = append(l.Points, Point{n, y, y * 0.8, y * 1.3})
		}
		return l
	}
	return Plot{
		File: "sets.svg", Title: "A verdict costs the same with 10,000 domain sets as with one, where a rule for each set costs 2 ms a packet",
		X: "domain sets", Y: "time of a new connection's first packet", LogX: true, LogY: true, NanosecondsY: true,
		Ours: "Nameward", Alternate: "Nameward stays at 300 ns; ipset & others <grow>.",
		Lines: []Line{
			line("ipset, one rule a set", 82, 1.1, 1, 10, 100, 1000, 10_000),
			line("Nameward", 250, 0.02, 1, 10, 100, 1000, 10_000),
			line("one xt_bpf program a set (does not fit beyond 1,000)", 87, 1.07, 1, 10, 100, 1000),
			line("our hooks with empty programs", 215, 0, 1, 10, 100, 1000, 10_000),
			line("nothing measured", 1, 1),
		},
	}
}

func TestPlotIsWellFormed(t *testing.T) {
	var svg bytes.Buffer
	if err := samplePlot().WriteSVG(&svg); err != nil {
		t.Fatal(err)
	}
	text := svg.String()
	decoder := xml.NewDecoder(&svg)
	for {
		_, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("parse: %v", err)
		}
	}
	for _, want := range []string{
		`<title id="title">A verdict costs`, `<desc id="desc">Nameward stays at 300 ns; ipset &amp; others &lt;grow&gt;.`,
		"prefers-color-scheme: dark", ">10k<", ">100<", ">1 ms<", ">10 µs<", `class="line ours c0"`, "name-ours", ">domain sets<",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in the plot", want)
		}
	}
	for _, unwanted := range []string{"NaN", "Inf", "nothing measured"} {
		if strings.Contains(text, unwanted) {
			t.Errorf("%q in the plot", unwanted)
		}
	}
	if ours := strings.LastIndex(text, "<polyline"); !strings.HasPrefix(text[ours:], `<polyline class="line ours`) {
		t.Error("another line lies above ours")
	}
}

func TestAxis(t *testing.T) {
	for _, test := range []struct {
		fact     string
		values   []float64
		log      bool
		fromZero bool
		ticks    string
	}{
		{"decades", []float64{100, 1e6}, true, false, "100 1k 10k 100k 1M"},
		{"few decades are divided", []float64{150, 700}, true, false, "100 200 500 1k"},
		{"what lies on a tick needs no further one", []float64{10, 100}, true, false, "10 20 50 100"},
		{"one value has a line of its own", []float64{100}, true, false, "100 200"},
		{"what is not above 0 does not count on a logarithmic axis", []float64{-3, 0, 10, 1000}, true, false, "10 100 1k"},
		{"linear", []float64{1.02, 1.09}, false, false, "1.02 1.04 1.06 1.08 1.1"},
		{"from zero", []float64{480, 1190}, false, true, "0 200 400 600 800 1k 1.2k"},
		{"one linear value", []float64{3}, false, false, "3 3.5 4 4.5 5 5.5 6"},
		{"nothing", nil, true, false, "1 2 5 10"},
	} {
		t.Run(test.fact, func(t *testing.T) {
			a := newAxis(test.values, test.log, test.fromZero, 0, 100)
			var got []string
			for _, tick := range a.ticks {
				got = append(got, Count(tick))
			}
			if text := strings.Join(got, " "); text != test.ticks {
				t.Errorf("ticks %s, want %s", text, test.ticks)
			}
			if a.at(a.low) != 0 || a.at(a.high) != 100 || a.at(a.high*2) != 100 {
				t.Errorf("the ends lie at %v and %v, what is beyond at %v", a.at(a.low), a.at(a.high), a.at(a.high*2))
			}
		})
	}
}

func TestLabelsDoNotOverlap(t *testing.T) {
	labels := []*label{
		{name: "a", parts: []string{"a", "a"}, endY: 300},
		{name: "b", parts: []string{"b"}, endY: 298},
		{name: "c", parts: []string{"c"}, endY: 299},
		{name: "d", parts: []string{"d"}, endY: 20},
	}
	settle(labels, 10, 310)
	order, bottom := "", 10.0
	for _, l := range labels {
		order += l.name
		if l.top < bottom {
			t.Errorf("%s begins at %v, above %v", l.name, l.top, bottom)
		}
		bottom = l.top + l.height()
	}
	if order != "dbca" || bottom > 310 {
		t.Errorf("order %s, the last ends at %v", order, bottom)
	}
}

func TestFormats(t *testing.T) {
	for _, test := range []struct{ got, want string }{
		{Count(0), "0"},
		{Count(1), "1"},
		{Count(999), "999"},
		{Count(1000), "1k"},
		{Count(12_500), "12.5k"},
		{Count(999_999), "1M"},
		{Count(1e6), "1M"},
		{Nanoseconds(412), "412 ns"},
		{Nanoseconds(4056), "4.06 µs"},
		{Nanoseconds(2_040_000), "2.04 ms"},
		{Nanoseconds(-12), "−12 ns"},
		{Nanoseconds(0.2), "0.2 ns"},
		{Nanoseconds(5.1e9), "5.1 s"},
		{Bytes(93), "93 B"},
		{Bytes(8 << 20), "8 MiB"},
		{Ratio(0.953), "0.95×"},
		{Ratio(9415), "9,415×"},
		{Percent(0.01), "1 %"},
		{Thousands(-1234567.4), "−1,234,567"},
		{Thousands(12), "12"},
		{WholeNanoseconds(2040.4), "2,040 ns"},
	} {
		if test.got != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
}
