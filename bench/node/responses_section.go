package node

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/bench/measure"
	"github.com/nameward/nameward/bench/report"
)

// responses measures an agent that follows what the kernel learns.
type responses struct{}

// followed is how the agent followed a stream of answers.
type followed struct {
	rate        float64 // answers a second
	cpu         float64 // of a core
	allocations float64 // an answer
	lost        float64 // answers that found no room in the ring buffer
	latency     measure.Series
	told        int
}

func (r responses) measure(ctx context.Context, bin string, size size, names []string) (result report.Result, err error) {
	s, err := open(ctx, bin)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	patterns, err := patternsOf(names, min(size.patterns, 1000))
	if err != nil {
		return result, err
	}
	if _, err := s.take(ctx, rulesOf(patterns)); err != nil {
		return result, err
	}
	count := size.responses * int(size.duration/time.Millisecond) / 1000
	repeated, err := r.follow(ctx, s, size, count, min(2000, count))
	if err != nil {
		return result, err
	}
	fresh, err := r.follow(ctx, s, size, count, count)
	if err != nil {
		return result, err
	}
	result = report.Result{
		Title: "The agent follows what the kernel learns",
		Text: fmt.Sprintf(`The node sees %s DNS answers a second for %v, each with an alias and an address. *Fresh*: each is of a name that the
node has not seen, so the kernel tells of each and each goes up to the server: the most there can be to do. *Repeated*: the same 2,000 names
again and again. The time from the answer to its mapping on the server is that of fresh ones; the agent gathers for 0.1 s by design. The
allocations are those of the whole process, reports to the server included.`, thousands(size.responses), size.duration),
		Tables: []report.Table{{
			Caption: fmt.Sprintf("%s answers a second", thousands(size.responses)),
			Columns: []string{"", "answers a second", "CPU of the agent", "an answer", "lost", "allocations an answer", "on the server after", "99 of 100 within"},
			Rows:    [][]string{fresh.row("fresh"), repeated.row("repeated")},
		}},
		Budgets: []report.Budget{{
			Work:     fmt.Sprintf("agent: %s answers a second, all of fresh names", thousands(size.responses)),
			Promise:  "none lost",
			Measured: fmt.Sprintf("%.0f lost; %.0f %% of a core", fresh.lost, 100*fresh.cpu),
			Met:      fresh.lost == 0,
		}},
	}
	return result, nil
}

func (f followed) row(name string) []string {
	row := []string{
		name, fmt.Sprintf("%.0f", f.rate), fmt.Sprintf("%.0f %%", 100*f.cpu), fmt.Sprintf("%.1f µs", 1e6*f.cpu/f.rate),
		fmt.Sprintf("%.0f", f.lost), fmt.Sprintf("%.1f", f.allocations),
	}
	if len(f.latency.Values) == 0 || name == "repeated" {
		return append(row, "", "")
	}
	return append(row, milliseconds(f.latency.Median()), milliseconds(f.latency.Quantile(0.99)))
}

var streams atomic.Int32 // so that each has names of its own

func (r responses) follow(ctx context.Context, s *site, size size, count, names int) (f followed, err error) {
	stream := streams.Add(1)
	exchanges := make([]exchange, count)
	for i := range exchanges {
		if i >= names {
			exchanges[i] = exchanges[i-names]
			continue
		}
		name := fmt.Sprintf("host-%d.stream-%d.example", i, stream)
		if exchanges[i], err = newExchange(uint16(i), name, "cdn."+name, address(i), 3600); err != nil {
			return f, err
		}
	}
	shown := make([]time.Time, count)
	arrived := make(chan int, count)
	s.session.observe(func(at time.Time, mappings []*namewardv1.Mapping) {
		for _, m := range mappings {
			var i int
			if n, _ := fmt.Sscanf(m.GetDomain(), fmt.Sprintf("host-%%d.stream-%d.example", stream), &i); n == 1 && i < count {
				f.latency.Values = append(f.latency.Values, inMilliseconds(at.Sub(shown[i])))
				f.told++
				if f.told == names {
					close(arrived)
				}
			}
		}
	})
	defer s.session.observe(nil)
	return f, r.watch(ctx, s, size, &f, exchanges, shown, arrived)
}

// watch shows the exchanges and says what that made the agent do.
func (r responses) watch(ctx context.Context, s *site, size size, f *followed, exchanges []exchange, shown []time.Time, arrived chan int) error {
	before, err := s.metrics(ctx)
	if err != nil {
		return err
	}
	cpu, err := cpuTime(s.agent.PID())
	if err != nil {
		return err
	}
	begun := time.Now()
	if err := s.feed.showAll(ctx, exchanges, size.responses, shown); err != nil {
		return err
	}
	took := time.Since(begun)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-arrived:
	case <-time.After(patience):
		return fmt.Errorf("of %d names %d came to the server", len(exchanges), f.told)
	}
	used, err := cpuTime(s.agent.PID())
	if err != nil {
		return err
	}
	after, err := s.metrics(ctx)
	if err != nil {
		return err
	}
	f.rate = float64(len(exchanges)) / took.Seconds()
	f.cpu = float64(used-cpu) / float64(took)
	f.lost = after["nameward_agent_events_lost_total"] - before["nameward_agent_events_lost_total"]
	f.allocations = (after["go_memstats_mallocs_total"] - before["go_memstats_mallocs_total"]) / float64(len(exchanges))
	return nil
}
