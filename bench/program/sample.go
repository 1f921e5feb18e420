package program

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"

	"github.com/nameward/nameward/bench/measure"
	"github.com/nameward/nameward/bench/report"
)

const (
	hotTime = time.Millisecond // of one sample: less than others of this CPU may take it away for
	hotMost = 5000             // runs in a sample
)

// An effort is how thoroughly to measure.
type effort struct {
	hotRounds, variedRounds int // samples of each variant
	packets                 int // in a varied sample
}

func effortOf(config report.Config) effort {
	if config.Fast {
		return effort{hotRounds: 9, variedRounds: 5, packets: 3000}
	}
	return effort{hotRounds: 61, variedRounds: 21, packets: 3000}
}

// hot runs a program on one packet again and again. A sample is the mean of a run, in nanoseconds.
func hot(name string, program *ebpf.Program, packet []byte) measure.Variant {
	repeats := 0
	return measure.Variant{Name: name, Sample: func(ctx context.Context) (float64, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if repeats == 0 {
			took, err := benchmark(program, packet, 3)
			if err != nil {
				return 0, err
			}
			repeats = min(max(int(hotTime/max(took, 1)), 1), hotMost)
		}
		took, err := benchmark(program, packet, repeats)
		return float64(took), err
	}}
}

// varied runs a program once on each of many packets. A sample is the median of the runs, in nanoseconds:
// of thousands some are interrupted.
func varied(name string, program *ebpf.Program, packets [][]byte, prepare func() error) measure.Variant {
	times := make([]time.Duration, len(packets))
	return measure.Variant{Name: name, Sample: func(ctx context.Context) (float64, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if err := prepare(); err != nil {
			return 0, err
		}
		for i, packet := range packets {
			var err error
			if times[i], err = benchmark(program, packet, 1); err != nil {
				return 0, err
			}
		}
		slices.Sort(times)
		return float64(times[len(times)/2]), nil
	}}
}

// nothing is what most programs need before a sample.
func nothing() error { return nil }

func benchmark(program *ebpf.Program, packet []byte, repeats int) (time.Duration, error) {
	_, took, err := program.Benchmark(packet, repeats, nil)
	if err != nil {
		return 0, fmt.Errorf("run %v on %d bytes: %w", program, len(packet), err)
	}
	return took, nil
}

// samples are series by their names.
type samples map[string]measure.Series

func interleave(ctx context.Context, rounds int, variants ...measure.Variant) (samples, error) {
	list, err := measure.Interleave(ctx, rounds, variants...)
	if err != nil {
		return nil, err
	}
	s := make(samples)
	for _, series := range list {
		s[series.Name] = series
	}
	return s, nil
}

// corrected gives what a hot program takes that asks again before each run: without the asking, but with what
// the kernel needs to run anything.
func (s samples) corrected(name, asking, empty string) measure.Series {
	net := s[name].Over(s[asking])
	for i, value := range net.Values {
		net.Values[i] = value + s[empty].Values[i]
	}
	net.Name = name
	return net
}

// point is a series at a size of a plot.
func point(size int, s measure.Series) report.Point {
	low, high := s.Spread()
	return report.Point{X: float64(size), Y: s.Median(), Low: low, High: high}
}

// ns is a cell: a median with its quartiles.
func ns(s measure.Series) string { return report.Spread(s, report.WholeNanoseconds) }

// cell is ns of a series, if it was measured.
func (s samples) cell(name string) string {
	series, measured := s[name]
	if !measured {
		return "–"
	}
	return ns(series)
}

// within is a budget that a median is to keep. An empty program takes what the last two say, here and where the
// promise was made.
func within(work string, most float64, s measure.Series, note string, empty measure.Series, emptyThere float64) report.Budget {
	budget := report.Budget{
		Work: work, Promise: "≤ " + report.WholeNanoseconds(most), Measured: ns(s), Met: s.Median() <= most,
		Relative: report.Relative(s.Median(), empty.Median(), most, emptyThere),
	}
	if !budget.Met {
		budget.Note = note
	}
	return budget
}

// beside says what the baselines took for a variant in the same run.
func (s samples) beside(variant string, b report.Budget) report.Budget {
	var others []string
	for _, buckets := range lpmBuckets {
		if series, measured := s[lpmName(buckets)+variant]; measured {
			others = append(others, lpmName(buckets)+": "+report.WholeNanoseconds(series.Median()))
		}
	}
	b.Beside = strings.Join(others, "; ")
	return b
}

// flat is a budget that cost does not double between the smallest size and the largest.
func flat(work string, line report.Line, note string) report.Budget {
	first, last := line.Points[0], line.Points[len(line.Points)-1]
	budget := report.Budget{
		Work: work, Promise: "≤ 2× from first to last size", Met: last.Y <= 2*first.Y,
		Measured: fmt.Sprintf("%s (%s → %s)", report.Ratio(last.Y/first.Y), report.WholeNanoseconds(first.Y), report.WholeNanoseconds(last.Y)),
	}
	if !budget.Met {
		budget.Note = note
	}
	return budget
}
