package path

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nameward/nameward/bench/measure"
	"github.com/nameward/nameward/bench/report"
)

// Promises, in nanoseconds.
const (
	egressPromise      = 250 // a run of the egress program, in path
	hookPromise        = 250 // the whole path over the same rules with empty programs
	establishedPromise = 30  // a packet of an established connection over no rules
	flatPromise        = 2   // times the cost of the smallest size
)

const newText = `A packet that opens a connection has to be judged. The packets are SYNs of TCP from a client behind the
node, each of a new connection, to destinations that take turns over all domain sets. They go over a virtual cable
into the node, through its rules, and out over another cable: what is timed is all of that, in bursts of 64.
Everything but the rules is equal in all lines, and the lines take turns in one run.

Where it says *one destination*, all connections go to the address of the last set: what was used lately is warm in
the processor's caches. Where destinations take turns, each address and its rules were pushed out of the nearest
caches by the others before they are used again, which no way of keeping them avoids.

*One ipset rule a set* is what a script writes that fills an ipset with the addresses of each list of names: the
kernel asks set after set, half of them on average, until one has the address. *One xt_bpf program a set* is the same
with programs that have one map each. nameward asks once: the address leads to the rules that its names match.

The cost is given over that of one conntrack rule (` + "`--ctstate RELATED,ESTABLISHED -j ACCEPT`" + `), which every
firewall that keeps state has.`

// What stands in the way where a promise is not kept.
const (
	warmNote = "each connection is three look-ups, one after the other: the class and workload of its source, the mapping of its destination, and the rules of the mapping's match set"
	coldNote = "where thousands of destinations take turns, the mapping and the rules for each come from memory, not from the nearest caches: a cell of the mapping, and behind it that of the rules, each in a page of its own"
)

func reportNew(all, legacy []costs) report.Result {
	r := report.Result{Title: "A new connection, by number of domain sets", Text: newText}
	r.Budgets = []report.Budget{
		noted(warmNote, worst("Verdict on a new connection: the egress program in path, at every number of domain sets, one destination", egressPromise, all, steadily(programOf(ours)), programOf(emptyHooks))),
		noted(coldNote, worst("Verdict on a new connection: the egress program in path, at every number of domain sets, destinations by turns", egressPromise, all, programOf(ours), programOf(emptyHooks))),
		noted(warmNote, worst("Verdict on a new connection: the whole path over the same rules with empty programs, at every number of domain sets, one destination", hookPromise, all, steadily(overHooks), unlike)),
		beside(insteadOf(all), noted(coldNote, worst("Verdict on a new connection: the whole path over the same rules with empty programs, at every number of domain sets, destinations by turns", hookPromise, all, overHooks, unlike))),
		flat("Verdict on a new connection: the egress program in path, most domain sets against fewest, one destination", all, steadily(programOf(ours))),
		noted(coldNote, flat("Verdict on a new connection: the egress program in path, most domain sets against fewest, destinations by turns", all, programOf(ours))),
	}
	r.Tables = []report.Table{
		bySize("Nanoseconds a new connection over one conntrack rule, destinations by turns: median (quartiles)", "domain sets", all, []column{
			{emptyHooks, over(plain, emptyHooks)}, {ours, over(plain, ours)}, {ipsets, over(plain, ipsets)}, {setPrograms, over(plain, setPrograms)},
		}),
		bySize("What that rests on: nanoseconds a new connection, whole path", "domain sets", all, []column{
			{noRules, pathOf(noRules)}, {plain, pathOf(plain)}, {emptyHooks, pathOf(emptyHooks)}, {ours, pathOf(ours)},
		}),
		bySize("nameward alone: nanoseconds a run of the egress program by the kernel's statistics, and the whole path over empty programs", "domain sets", all, []column{
			{"empty program", programOf(emptyHooks)},
			{"egress program, one destination", steadily(programOf(ours))},
			{"egress program, by turns", programOf(ours)},
			{"path over empty programs, one destination", steadily(overHooks)},
			{"path over empty programs, by turns", overHooks},
		}),
	}
	if len(legacy) > 0 {
		r.Tables = append(r.Tables, bySize("The same with iptables-legacy, destinations by turns", "domain sets", legacy, []column{
			{"empty program", programOf(emptyHooks)},
			{"egress program", programOf(ours)},
			{"path over empty programs", overHooks},
			{"path over one conntrack rule", over(plain, ours)},
		}))
	}
	r.Plots = []report.Plot{{
		File: "new-connections.svg", Title: "Cost of a new connection, by number of domain sets",
		X: "domain sets", Y: "ns a new connection, over one conntrack rule", LogX: true, LogY: true, Ours: ours,
		Lines: []report.Line{
			line(ours, all, over(plain, ours)), line(emptyHooks, all, over(plain, emptyHooks)),
			line(ipsets, all, over(plain, ipsets)), line(setPrograms, all, over(plain, setPrograms)),
		},
		Alternate: fmt.Sprintf("With %s domain sets, nameward adds %s ns to a new connection, and one ipset rule a set %s ns.",
			report.Thousands(float64(all[len(all)-1].size)), median(all, over(plain, ours)), median(all, over(plain, ipsets))),
	}}
	return r
}

// A reading takes a series out of the costs at one size; false if it was not measured there.
type reading func(costs) (measure.Series, bool)

func pathOf(name string) reading {
	return func(c costs) (measure.Series, bool) { s, ok := c.path[name]; return s, ok }
}

func programOf(name string) reading {
	return func(c costs) (measure.Series, bool) { s, ok := c.program[name]; return s, ok }
}

// over is how much more the whole path costs one way than another.
func over(baseline, name string) reading {
	return func(c costs) (measure.Series, bool) {
		theirs, found := c.path[baseline]
		ours, ok := c.path[name]
		if !found || !ok {
			return measure.Series{}, false
		}
		return ours.Over(theirs), true
	}
}

func overHooks(c costs) (measure.Series, bool) { return over(emptyHooks, ours)(c) }

// steadily is a reading where all connections are alike.
func steadily(read reading) reading {
	return func(c costs) (measure.Series, bool) { return read(*c.steady) }
}

// A column of a table of costs by size.
type column struct {
	name string
	read reading
}

func bySize(caption, size string, all []costs, columns []column) report.Table {
	t := report.Table{Caption: caption, Columns: []string{size}}
	for _, c := range columns {
		t.Columns = append(t.Columns, c.name)
	}
	for _, at := range all {
		row := []string{report.Thousands(float64(at.size))}
		for _, c := range columns {
			text := "–"
			if s, ok := c.read(at); ok {
				text = spread(s)
			}
			row = append(row, text)
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

func line(name string, all []costs, read reading) report.Line {
	l := report.Line{Name: name}
	for _, c := range all {
		if s, ok := read(c); ok {
			l.Points = append(l.Points, point(c.size, s))
		}
	}
	return l
}

// worst holds the largest median against a promise, and against an empty program where that is of the same kind.
func worst(work string, promise float64, all []costs, read, empty reading) report.Budget {
	var largest, beside measure.Series
	size := 0
	for _, c := range all {
		if s, ok := read(c); ok && (size == 0 || s.Median() > largest.Median()) {
			largest, size = s, c.size
			beside, _ = empty(c)
		}
	}
	b := report.Budget{
		Work: work, Promise: fmt.Sprintf("≤ %s ns", report.Thousands(promise)), Met: largest.Median() <= promise,
		Measured: fmt.Sprintf("%s ns, at %s", spread(largest), report.Thousands(float64(size))),
	}
	if len(beside.Values) > 0 {
		b.Relative = report.Relative(largest.Median(), beside.Median(), promise, report.EmptyInPath)
	}
	return b
}

// unlike an empty program is what is measured over one.
func unlike(costs) (measure.Series, bool) { return measure.Series{}, false }

// noted says what stands in the way of a budget that is not met.
func noted(note string, b report.Budget) report.Budget {
	if !b.Met {
		b.Note = note
	}
	return b
}

// beside says what others took in the same run.
func beside(others string, b report.Budget) report.Budget {
	b.Beside = others
	return b
}

// insteadOf is what the ways that others go add to one conntrack rule, each with the most domain sets that it was
// measured with.
func insteadOf(all []costs) string {
	var others []string
	for _, name := range []string{ipsets, setPrograms, ours} {
		for _, c := range slices.Backward(all) {
			if s, ok := over(plain, name)(c); ok {
				others = append(others, fmt.Sprintf("%s %s ns at %s", name, report.Thousands(s.Median()), report.Thousands(float64(c.size))))
				break
			}
		}
	}
	return "over one conntrack rule: " + strings.Join(others, "; ")
}

// flat holds the cost at the last size against that at the first.
func flat(work string, all []costs, read reading) report.Budget {
	first, _ := read(all[0])
	last, _ := read(all[len(all)-1])
	ratio := last.Median() / first.Median()
	return report.Budget{
		Work: work, Promise: fmt.Sprintf("within %d×", flatPromise), Met: ratio <= flatPromise,
		Measured: fmt.Sprintf("%.2f× (%s ns against %s ns)", ratio, report.Thousands(last.Median()), report.Thousands(first.Median())),
	}
}

// median is that of the last size at which it was measured.
func median(all []costs, read reading) string {
	text := "–"
	for _, c := range all {
		if s, ok := read(c); ok {
			text = report.Thousands(s.Median())
		}
	}
	return text
}
