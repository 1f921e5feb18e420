package report

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nameward/nameward/bench/measure"
)

func samplePage() Page {
	return Page{
		Machine: Machine{CPU: "a CPU", Cores: 2, Memory: 8 << 30, Kernel: "6.18.5", Load: "0.1 0.2 0.3", Versions: []Version{{"iptables", "1.8.9 (nf_tables)"}}},
		Date:    time.Date(2026, 11, 26, 15, 0, 0, 0, time.UTC), Names: "1,200,000, made alike real ones",
		Outcomes: []Outcome{
			{Section: "verdict", Took: 90 * time.Second, Result: Result{
				Title: "A verdict on a new connection", Text: "What it costs.\n",
				Budgets: []Budget{
					{Work: "verdict | 1 set", Promise: "≤ 250 ns", Measured: "212 ns (200–220)", Met: true},
					{Work: "verdict, 10,000 sets", Promise: "≤ 250 ns", Measured: "312 ns (300–320)", Note: "cache misses", Relative: Relative(312, 32, 250, 16)},
				},
				Tables: []Table{{Caption: "By size", Columns: []string{"domain sets", "median"}, Rows: [][]string{{"1", "212 ns"}, {"10,000", "312 ns"}}}},
				Plots:  []Plot{samplePlot()},
			}},
			{Section: "traffic", Err: errors.New("start knot: no such file"), Took: time.Second},
		},
	}
}

func TestPage(t *testing.T) {
	var page bytes.Buffer
	if err := samplePage().Write(&page, "benchmarks"); err != nil {
		t.Fatal(err)
	}
	text := page.String()
	for _, want := range []string{
		"| [verdict \\| 1 set](#verdict) | ≤ 250 ns | 212 ns (200–220) | yes | – |\n",
		"| [verdict, 10,000 sets](#verdict) | ≤ 250 ns | 312 ns (300–320) | **no** | 0.62× |\n",
		"- *verdict, 10,000 sets*: cache misses\n",
		"| kernel | 6.18.5 |\n", "| iptables | 1.8.9 (nf_tables) |\n", "| names | 1,200,000, made alike real ones |\n", "| date | 2026-11-26 15:00 UTC |\n",
		"**Section [traffic](#traffic) failed**", "## traffic: failed\n\n```\nstart knot: no such file\n```",
		"![Nameward stays at 300 ns; ipset & others <grow>.](benchmarks/sets.svg)\n",
		"**By size**\n\n| domain sets | median |\n| --- | ---: |\n| 1 | 212 ns |\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in the page:\n%s", want, text)
		}
	}
	if strings.Index(text, "## Budgets") > strings.Index(text, "## The machine") || strings.Contains(text, "fast run") {
		t.Errorf("the budgets come first, and nothing says it was a fast run:\n%s", text)
	}
}

func TestSave(t *testing.T) {
	file := filepath.Join(t.TempDir(), "docs", "benchmarks.md")
	if err := samplePage().Save(file); err != nil {
		t.Fatal(err)
	}
	for _, made := range []string{file, filepath.Join(filepath.Dir(file), "benchmarks", "sets.svg")} {
		if info, err := os.Stat(made); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", made, err)
		}
	}
}

func TestPrint(t *testing.T) {
	var terminal bytes.Buffer
	for _, outcome := range samplePage().Outcomes {
		if err := outcome.Print(&terminal); err != nil {
			t.Fatal(err)
		}
	}
	want := `A verdict on a new connection (verdict, 1m30s)

  budget                 promise          measured  met  by empty programs
  verdict | 1 set       ≤ 250 ns  212 ns (200–220)  yes                  –
  verdict, 10,000 sets  ≤ 250 ns  312 ns (300–320)   no              0.62×

  By size
  domain sets  median
  1            212 ns
  10,000       312 ns

traffic failed after 1s: start knot: no such file

`
	if terminal.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", terminal.String(), want)
	}
}

func TestThisMachine(t *testing.T) {
	m := ThisMachine(t.Context())
	if m.Cores < 1 || m.Memory < 1<<20 || m.Kernel == "unknown" || m.Load == "" || len(m.Versions) == 0 {
		t.Errorf("machine: %+v", m)
	}
}

func TestSpread(t *testing.T) {
	for _, test := range []struct {
		fact   string
		values []float64
		want   string
	}{
		{"a unit is said once", []float64{410, 412, 415}, "412 ns (410–415)"},
		{"units that differ are all said", []float64{900, 1000, 1200}, "1 µs (900 ns–1.2 µs)"},
	} {
		series := measure.Series{Values: []float64{test.values[0], test.values[0], test.values[1], test.values[2], test.values[2]}}
		if got := Spread(series, Nanoseconds); got != test.want {
			t.Errorf("%s: %s, want %s", test.fact, got, test.want)
		}
	}
}
