package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nameward/nameward/bench/report"
)

// mappings measures what an agent needs to hold rules and mappings, and how it lets go of these.
type mappings struct{}

const memoryBudget = 150e6

func (m mappings) measure(ctx context.Context, bin string, size size, names []string) (result report.Result, err error) {
	s, err := open(ctx, bin, "--min-ttl", "1s", "--ttl-grace", "1s")
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	patterns, err := patternsOf(names, size.patterns)
	if err != nil {
		return result, err
	}
	if _, err := s.take(ctx, rulesOf(patterns)); err != nil {
		return result, err
	}
	learned, err := m.learn(ctx, s, size, names)
	if err != nil {
		return result, err
	}
	held, err := memoryOf(s.agent.PID())
	if err != nil {
		return result, err
	}
	metrics, err := s.metrics(ctx)
	if err != nil {
		return result, err
	}
	end, err := m.watchTheEnd(ctx, s, learned)
	if err != nil {
		return result, err
	}
	return m.result(size, held, metrics["go_memstats_heap_alloc_bytes"], learned, end), nil
}

func (m mappings) result(size size, held memory, heap float64, learned learning, end ending) report.Result {
	return report.Result{
		Title: "The agent holds mappings",
		Text: fmt.Sprintf(`%s patterns are in force, and the node learns %s mappings, of a name and an alias each, that all live at once.
Memory is what the process has in memory then, as the kernel counts it: its own, and pages that it shares (its program file, the
journal of mappings, which is a file, and the ring buffer, which is the kernel's). Then the mappings end, within a few seconds of one
another; the agent is asked ten times a second how many it still holds, and that is compared with how many still live.`, thousands(size.patterns), thousands(size.mappings)),
		Budgets: []report.Budget{{
			Work:     fmt.Sprintf("agent: resident memory with %s patterns and %s live mappings", thousands(size.patterns), thousands(size.mappings)),
			Promise:  "≤ 150 MB",
			Measured: fmt.Sprintf("%s (of which its own: %s)", megabytes(held.resident), megabytes(held.anonymous)),
			Met:      held.resident <= memoryBudget,
		}},
		Tables: []report.Table{
			{
				Caption: "Memory",
				Columns: []string{"", "resident", "own", "shared", "at most, ever", "heap"},
				Rows: [][]string{{
					"agent", megabytes(held.resident), megabytes(held.anonymous), megabytes(held.file), megabytes(held.peak), megabytes(heap),
				}},
			},
			{
				Caption: fmt.Sprintf("%s mappings come and go", thousands(size.mappings)),
				Columns: []string{"", "CPU of the agent", "a mapping", "held too long, at most"},
				Rows: [][]string{
					{"they come", milliseconds(learned.cpu), perMapping(learned.cpu, size.mappings), ""},
					{"they end", milliseconds(end.cpu), perMapping(end.cpu, size.mappings), milliseconds(end.late)},
				},
			},
		},
	}
}

func perMapping(cpu float64, mappings int) string {
	return fmt.Sprintf("%.1f µs", cpu*1000/float64(mappings))
}

// learning is what was learned, and what it cost the agent.
type learning struct {
	ends []time.Time // of each mapping, in order
	cpu  float64     // ms
}

// endsOver is over how long a time the lifetimes of mappings are spread, in seconds.
const endsOver = 5

// feedRate is how many answers a second the node sees where the rate is not what is measured.
const feedRate = 10_000

func (m mappings) learn(ctx context.Context, s *site, size size, names []string) (l learning, err error) {
	exchanges := make([]exchange, size.mappings)
	total := time.Duration(size.mappings) * time.Second / feedRate
	for i := range exchanges {
		// What comes later lives shorter, so that all of them live at once.
		ttl := (size.lifetime + total - time.Duration(i)*time.Second/feedRate).Seconds() + float64(i%endsOver)
		if exchanges[i], err = newExchange(uint16(i), names[i%size.patterns], fmt.Sprintf("edge-%d.cdn.example", i), address(i), uint32(ttl)); err != nil {
			return l, err
		}
		l.ends = append(l.ends, time.Time{}.Add(time.Duration(uint32(ttl)+1)*time.Second)) // and the grace
	}
	before, err := cpuTime(s.agent.PID())
	if err != nil {
		return l, err
	}
	shown := make([]time.Time, len(exchanges))
	if err := s.feed.showAll(ctx, exchanges, feedRate, shown); err != nil {
		return l, err
	}
	for i := range l.ends {
		l.ends[i] = shown[i].Add(l.ends[i].Sub(time.Time{}))
	}
	if err := s.awaitHeld(ctx, func(held int) bool { return held >= size.mappings }, nil); err != nil {
		return l, fmt.Errorf("learn mappings: %w", err)
	}
	after, err := cpuTime(s.agent.PID())
	l.cpu = inMilliseconds(after - before)
	return l, err
}

// ending is how mappings end.
type ending struct{ cpu, late float64 } // ms

// watchTheEnd waits until none is held, and finds for how long one was held that lived no longer.
func (m mappings) watchTheEnd(ctx context.Context, s *site, l learning) (e ending, err error) {
	ends := sortedTimes(l.ends)
	before, err := cpuTime(s.agent.PID())
	if err != nil {
		return e, err
	}
	err = s.awaitHeld(ctx, func(held int) bool { return held == 0 }, func(at time.Time, held int) {
		// Of those that are held the first to end is as many before the last.
		if held > 0 && held <= len(ends) {
			e.late = max(e.late, inMilliseconds(at.Sub(ends[len(ends)-held])))
		}
	})
	if err != nil {
		return e, fmt.Errorf("let mappings end: %w", err)
	}
	after, err := cpuTime(s.agent.PID())
	e.cpu = inMilliseconds(after - before)
	return e, err
}
