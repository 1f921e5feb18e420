package traffic

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/bench/measure"
	"github.com/nameward/nameward/bench/report"
)

// The programs that run for a question, by the names of their pins up to the build.
var questionPrograms = []string{"dns_query_forwarded", "dns_response"}

// programTimes floods our node once more while the kernel keeps the time of programs (bpf_stats), and gives
// that of each for one question, in nanoseconds.
func (w *way) programTimes(ctx context.Context, slice time.Duration, name func(number int) string) ([]float64, error) {
	statistics, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		return nil, fmt.Errorf("keep the time of programs: %w", err)
	}
	defer statistics.Close() //nolint:errcheck // nothing to be done
	before, err := w.programRuns()
	if err != nil {
		return nil, err
	}
	if _, err := floodAll(ctx, plan{slice: slice}, []*way{w}, name); err != nil {
		return nil, err
	}
	after, err := w.programRuns()
	if err != nil {
		return nil, err
	}
	times := make([]float64, len(questionPrograms))
	for i := range times {
		runs := max(after[i].RunCount-before[i].RunCount, 1)
		times[i] = float64((after[i].Runtime - before[i].Runtime).Nanoseconds()) / float64(runs)
	}
	return times, nil
}

// programRuns reads what the kernel counted of the agent's programs.
func (w *way) programRuns() ([]*ebpf.ProgramStats, error) {
	var all []*ebpf.ProgramStats
	for _, name := range questionPrograms {
		pins, err := filepath.Glob(filepath.Join(w.pins, "*", "programs", name+"*"))
		if err != nil || len(pins) == 0 {
			return nil, fmt.Errorf("find program %s: %w", name, err)
		}
		program, err := ebpf.LoadPinnedProgram(pins[0], nil)
		if err != nil {
			return nil, fmt.Errorf("open program %s: %w", name, err)
		}
		stats, err := program.Stats()
		_ = program.Close() // read only
		if err != nil {
			return nil, fmt.Errorf("read times of program %s: %w", name, err)
		}
		all = append(all, stats)
	}
	return all, nil
}

func programsTable(known, fresh []float64) report.Table {
	table := report.Table{
		Caption: "Our programs in the floods: nanoseconds a question (bpf_stats)",
		Columns: []string{"program", "names that were asked for before", "fresh names"},
	}
	for i, name := range questionPrograms {
		table.Rows = append(table.Rows, []string{name, report.Thousands(known[i]), report.Thousands(fresh[i])})
	}
	return table
}

// cpuOfQuestion is what a question costs of all CPUs, in nanoseconds, where they answer so many a second.
func cpuOfQuestion(rate measure.Series) float64 {
	return float64(runtime.NumCPU()) / rate.Median() * 1e9
}

// whatFreshNamesTake says where the time goes that a question for a fresh name costs over the empty programs.
func whatFreshNamesTake(all []measure.Series, times []float64) string {
	programs := 0.0
	for _, took := range times {
		programs += took
	}
	more := cpuOfQuestion(seriesOf(all, ours)) - cpuOfQuestion(seriesOf(all, emptyRules))
	return fmt.Sprintf("A question costs %.1f µs of the CPUs more than with empty programs. Our programs take %.1f µs; agent and policy server, which take note of each new name, share the CPUs with client, node and DNS server.",
		more/1000, programs/1000)
}

// whatStandsInTheWay says where the time goes that a question costs over the empty programs.
func whatStandsInTheWay(empty measure.Series, times []float64) string {
	cpu := cpuOfQuestion(empty)
	var parts []string
	for i, name := range questionPrograms {
		parts = append(parts, fmt.Sprintf("%s %.0f ns", name, times[i]))
	}
	return fmt.Sprintf("A question costs %.1f µs of the CPUs with empty programs. On top of it our programs may take %.0f ns together; they take %s.",
		cpu/1000, cpu*(1/queriesBudget-1), strings.Join(parts, " and "))
}
