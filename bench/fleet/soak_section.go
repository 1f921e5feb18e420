package fleet

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/timestamppb"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/bench/report"
	"github.com/nameward/nameward/e2e/fleet"
)

const (
	soakChanges  = 20     // a second
	soakMappings = 50_000 // a second
	soakBatch    = 50     // mappings of one report
	soakTick     = 20 * time.Millisecond
	// soakLag is within what every node is to have every change: the longest time for which changes are gathered, and that
	// for which 10,000 nodes are told.
	soakLag = 10 * time.Second
)

// gatherLimit is that of controlplane/publish.
func gatherLimit(nodes int) time.Duration {
	return 250*time.Millisecond + time.Duration(nodes)*500*time.Microsecond
}

// soaked is a fleet that lives with changes and reports for a while.
type soaked struct {
	*observed
	lag     lag
	last    []fleet.Batch // that each node sent
	ownCPU  time.Duration
	reports int // batches that were sent
	refused int // and those that could not be, since the node was not connected
	dropped int // and those that were sent on a connection that broke before they were taken in
	took    time.Duration
	changes int    // that were written
	broken  int    // connections
	reasons string // why connections broke
}

// soak has all nodes live with changes and reports, and counts what breaks.
func (w works) soak(ctx context.Context, config report.Config) (report.Result, error) {
	lasts := config.Soak
	if lasts == 0 {
		lasts = time.Minute
	}
	if config.Fast {
		lasts = 3 * time.Second
	}
	return w.with(func(ctx context.Context, bin string, size size) (report.Result, error) {
		return live(ctx, bin, size, lasts)
	})(ctx, config)
}

func live(ctx context.Context, bin string, size size, lasts time.Duration) (result report.Result, err error) {
	o := &observed{size: size, ends: time.Now().Add(12 * time.Hour)}
	if o.server, err = open(ctx, bin, "--max-mappings", strconv.Itoa(size.connected*soakBatch*20)); err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, o.server.close()) }()
	if err := o.server.putMany(ctx, policiesOfMany, 0, policiesOfMany); err != nil {
		return result, err
	}
	s := &soaked{observed: o}
	o.agents = joinWith(ctx, o.server, size.connected, s.lag.arrived)
	defer func() { err = errors.Join(err, o.agents.stop()) }()
	if err := o.agents.awaitRevision(ctx, policiesOfMany); err != nil {
		return result, err
	}
	// Once all nodes are known, nothing but writes of policies moves the revision, each by one.
	if _, err := changeAll(ctx, o.server, o.agents, 1); err != nil {
		return result, err
	}
	s.lag.begin(o.agents.Agent(kept).State().Revision)
	before, err := o.server.use()
	if err != nil {
		return result, err
	}
	settled := o.agents.failures()
	began, own := time.Now(), ownCPU()
	changes, err := s.live(ctx, began.Add(lasts))
	took := time.Since(began)
	if err != nil {
		return result, err
	}
	s.ownCPU = ownCPU() - own
	if err := o.agents.awaitRevision(ctx, s.lag.newest()); err != nil {
		return result, err
	}
	if err := s.awaitBatches(ctx); err != nil {
		return result, err
	}
	after, err := o.server.use()
	if err != nil {
		return result, err
	}
	s.took, s.changes, s.broken = took, changes, o.agents.failures()-settled
	s.reasons = "none left"
	if why := o.server.whyLeft(); len(why) > 0 {
		s.reasons = fmt.Sprint(why)
	}
	return s.result(lasts, before, after), nil
}

func (s *soaked) result(lasts time.Duration, before, after use) report.Result {
	connected := s.nodes()
	return report.Result{
		Title: "A fleet lives with changes and reports",
		Text: fmt.Sprintf(`%s nodes on one server, for %v: %d changes of policies a second, each of which concerns all nodes, and %s mappings a
second from all nodes by turns. How long a node did not have a change is counted from the answer to its write, for the oldest
change of each message: the policy server gathers changes while it tells nodes of others, for no longer than %.1f s with so
many nodes, and then they have to be told. A report is lost when its connection broke before the server had taken it in, and
is sent again by an agent that is real. Server and nodes share the machine's CPUs.`,
			report.Thousands(float64(s.size.connected)), lasts, soakChanges, report.Thousands(soakMappings), gatherLimit(s.size.connected).Seconds()),
		Budgets: []report.Budget{
			{Work: connected + ": connections that broke", Promise: "0", Measured: strconv.Itoa(s.broken), Met: s.broken == 0},
			{Work: connected + ": reports that found no connection, or were lost with it", Promise: "0", Measured: strconv.Itoa(s.refused + s.dropped), Met: s.refused+s.dropped == 0},
			s.rate("changes a second", soakChanges, float64(s.changes)/s.took.Seconds()),
			s.rate("mappings a second", soakMappings, float64(s.reports*soakBatch)/s.took.Seconds()),
			{
				Work: connected + ": every change at every node within", Promise: fmt.Sprintf("≤ %g s", soakLag.Seconds()),
				Measured: seconds(s.lag.quantile(1) / 1000), Met: s.lag.quantile(1) <= inMilliseconds(soakLag),
			},
		},
		Tables: []report.Table{{
			Columns: []string{"", ""},
			Rows: [][]string{
				{"half of all messages brought a change within", milliseconds(s.lag.quantile(0.5))},
				{"99 of 100", milliseconds(s.lag.quantile(0.99))},
				{"all", milliseconds(s.lag.quantile(1))},
				{"CPU of the server", report.Percent((after.cpu - before.cpu).Seconds() / s.took.Seconds())},
				{"CPU of the agents and of who writes", report.Percent(s.ownCPU.Seconds() / s.took.Seconds())},
				{"memory of the server at most", report.Bytes(after.peak)},
				{"why nodes left, in words of the server", s.reasons},
			},
		}},
	}
}

func (s *soaked) nodes() string {
	return report.Thousands(float64(s.size.connected)) + " nodes connected and current"
}

// rate is a budget that is met when it is no more than a hundredth below what is to be: what is counted begins and ends
// with a tick.
func (s *soaked) rate(what string, wanted, got float64) report.Budget {
	return report.Budget{
		Work: s.nodes() + ": " + what, Promise: report.Thousands(wanted) + ", to a hundredth", Measured: report.Thousands(got), Met: got >= 0.99*wanted,
	}
}

func (a *agents) failures() (sum int) {
	for _, s := range a.States() {
		sum += s.Failures + s.Faults
	}
	return sum
}

// live writes changes and sends reports until it is time, and returns how many changes it wrote.
func (s *soaked) live(ctx context.Context, until time.Time) (changes int, err error) {
	reporting := make(chan struct{})
	go func() {
		defer close(reporting)
		s.report(ctx, until)
	}()
	defer func() { <-reporting }()
	// Each change has its moment, however long the write of another takes.
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(writers)
	for moment := range ticks(ctx, time.Second/soakChanges, until) {
		for ; changes < moment; changes++ {
			change := changes
			g.Go(func() error {
				if err := s.server.put(ctx, policyOf(change%policiesOfMany, 2+change)); err != nil {
					return err
				}
				s.lag.changed()
				return nil
			})
		}
	}
	return changes, g.Wait() //nolint:wrapcheck // says what it did
}

// ticks tells, until it is time or ctx ends, how many intervals have passed. Who is late hears of all at once.
func ticks(ctx context.Context, interval time.Duration, until time.Time) iter.Seq[int] {
	return func(yield func(int) bool) {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for began := time.Now(); time.Now().Before(until); {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			if !yield(int(time.Since(began) / interval)) {
				return
			}
		}
	}
}

// report sends batches of mappings, of node after node, as fast as they are to come.
func (s *soaked) report(ctx context.Context, until time.Time) {
	const batchesATick = soakMappings / soakBatch / int(time.Second/soakTick)
	turn := 0
	s.last = make([]fleet.Batch, s.size.connected)
	for moment := range ticks(ctx, soakTick, until) {
		for ; turn < moment*batchesATick; turn++ {
			node := turn % s.size.connected
			batch, err := s.agents.Agent(node).Observe(s.some(turn))
			if err != nil {
				s.refused++
				continue
			}
			if before := s.last[node]; before.Stream != 0 && before.Stream != batch.Stream {
				s.dropped++ // nobody knows whether the server had it
			}
			s.last[node] = batch
			s.reports++
		}
	}
}

// awaitBatches returns when the server has taken in the last report of every node, but for those that it cannot.
func (s *soaked) awaitBatches(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := s.agents.Await(ctx, func(state fleet.State) bool {
		last := s.last[state.Node]
		return last.Stream == 0 || state.In(last) || state.Lost(last)
	})
	for node, last := range s.last {
		if last.Stream != 0 && s.agents.Agent(node).State().Lost(last) {
			s.dropped++
		}
	}
	return err //nolint:wrapcheck // says what it waited for
}

// some is the next batch of the node whose turn it is: of the names that it has, the next.
func (s *soaked) some(turn int) []*namewardv1.Mapping {
	const batches = 10 // that a node has before it begins anew
	node, at := turn%s.size.connected, turn/s.size.connected%batches*soakBatch
	name := fmt.Sprintf("nodes/node-%d", node)
	batch := make([]*namewardv1.Mapping, soakBatch)
	seen, ends := timestamppb.Now(), timestamppb.New(s.ends.Add(time.Duration(turn/s.size.connected)*time.Second))
	for i := range batch {
		number := (at+i)*s.size.connected + node
		batch[i] = &namewardv1.Mapping{
			Domain: nameOf(number), Address: addressOf(number), Node: name, Client: "10.0.0.7",
			FirstSeenTime: seen, LastSeenTime: seen, ExpireTime: ends,
		}
	}
	return batch
}
