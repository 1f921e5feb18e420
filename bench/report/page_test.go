package report

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/nameward/nameward/bench/measure"
)

// run is one of some sections, each of which measured one thing.
func run(commit string, minute int, sections ...string) Run {
	r := Run{
		Commit: commit, Began: time.Date(2026, 11, 26, 15, minute, 0, 0, time.UTC), Names: "1,200,000, made alike real ones",
		Machine: Machine{CPU: "a CPU", Cores: 2, Memory: 8 << 30, Kernel: "6.18.5", Load: "0.1 0.2 0.3", Versions: []Version{{"iptables", "1.8.9 (nf_tables)"}}},
	}
	for _, name := range sections {
		r.Outcomes = append(r.Outcomes, Outcome{Section: name, Took: 5 * time.Second, Result: Result{
			Title: "Of " + name, Budgets: []Budget{{Work: "work of " + name, Promise: "0", Measured: commit, Met: true}},
		}})
	}
	return r
}

func samplePage() Page {
	r := run("61df69e", 0)
	r.Outcomes = []Outcome{
		{Section: "traffic", Failure: "start knot: no such file", Took: time.Second},
		{Section: "verdict", Took: 90 * time.Second, Result: Result{
			Title: "A verdict on a new connection", Text: "What it costs.\n",
			Budgets: []Budget{
				{Work: "verdict | 1 set", Promise: "≤ 250 ns", Measured: "212 ns (200–220)", Met: true, Beside: "ipset: 300 ns"},
				{Work: "verdict, 10,000 sets", Promise: "≤ 250 ns", Measured: "312 ns (300–320)", Note: "cache misses", Relative: Relative(312, 32, 250, 16)},
				{Work: "verdict, 20,000 sets", Promise: "≤ 250 ns", Measured: "412 ns (400–420)", Note: "cache misses"},
				{Work: "verdict, 30,000 sets", Promise: "≤ 250 ns", Measured: "512 ns (500–520)"},
			},
			Tables: []Table{{Caption: "By size", Columns: []string{"domain sets", "median"}, Rows: [][]string{{"1", "212 ns"}, {"10,000", "312 ns"}}}},
			Plots:  []Plot{samplePlot()},
		}},
	}
	return Page{Sections: []Section{{Name: "verdict", Half: "Dataplane"}, {Name: "traffic", Half: "Dataplane"}, {Name: "fleet", Half: "Control plane"}}, Runs: []Run{r}}
}

func text(t *testing.T, page Page) string {
	t.Helper()
	var b bytes.Buffer
	if err := page.Write(&b, "benchmarks"); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func contains(t *testing.T, text string, wanted ...string) {
	t.Helper()
	for _, want := range wanted {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in the page:\n%s", want, text)
		}
	}
}

func TestPage(t *testing.T) {
	text := text(t, samplePage())
	contains(t, text,
		"1 of 4 promises are met.", "### Dataplane\n\n| work |",
		"| [verdict \\| 1 set](#verdict) | ≤ 250 ns | 212 ns (200–220) | yes | – | ipset: 300 ns |\n",
		"| [verdict, 10,000 sets](#verdict) | ≤ 250 ns | 312 ns (300–320) | **no** | 0.62× | – |\n",
		"- *verdict, 10,000 sets*; *verdict, 20,000 sets*: cache misses\n", "- *verdict, 30,000 sets*: this run does not tell why.\n",
		"| kernel | 6.18.5 |\n", "| iptables | 1.8.9 (nf_tables) |\n", "| names | 1,200,000, made alike real ones |\n", "| what | 2026-11-26 15:00 UTC |\n", "| Nameward | 61df69e |\n",
		"**Section [traffic](#traffic) failed**", "## traffic: failed\n\n```\nstart knot: no such file\n```",
		"**Not measured, so that their budgets are not in the table**: `fleet`.",
		"![Nameward stays at 300 ns; ipset & others <grow>.](benchmarks/sets.svg)\n",
		"**By size**\n\n| domain sets | median |\n| --- | ---: |\n| 1 | 212 ns |\n",
		"*Section `verdict`, measured in 1m30s: `61df69e`, 2026-11-26 15:00 UTC.*\n",
	)
	for _, unwanted := range []string{"fast run", "of one commit", "Control plane", "| commit |", "| sections |"} {
		if strings.Contains(text, unwanted) {
			t.Errorf("%q in the page:\n%s", unwanted, text)
		}
	}
	if strings.Index(text, "## Budgets") > strings.Index(text, "## The machine") || strings.Index(text, `id="verdict"`) > strings.Index(text, `id="traffic"`) {
		t.Errorf("the budgets come first, and sections in their order:\n%s", text)
	}
}

func TestPrint(t *testing.T) {
	var terminal bytes.Buffer
	for _, outcome := range samplePage().Runs[0].Outcomes {
		if err := outcome.Print(&terminal); err != nil {
			t.Fatal(err)
		}
	}
	want := `traffic failed after 1s: start knot: no such file

A verdict on a new connection (verdict, 1m30s)

  budget                 promise          measured  met  by empty programs         others
  verdict | 1 set       ≤ 250 ns  212 ns (200–220)  yes                  –  ipset: 300 ns
  verdict, 10,000 sets  ≤ 250 ns  312 ns (300–320)   no              0.62×              –
  verdict, 20,000 sets  ≤ 250 ns  412 ns (400–420)   no                  –              –
  verdict, 30,000 sets  ≤ 250 ns  512 ns (500–520)   no                  –              –

  By size
  domain sets  median
  1            212 ns
  10,000       312 ns

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
