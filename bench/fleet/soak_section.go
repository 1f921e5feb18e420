package fleet

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/bench/report"
	"github.com/nameward/nameward/e2e/fleet"
)

const (
	soakChanges  = 20     // a second
	soakMappings = 50_000 // a second
	soakBatch    = 50     // mappings of one report
	soakTick     = 100 * time.Millisecond
)

// soaked is a fleet that lives with changes and reports for a while.
type soaked struct {
	*observed
	lag     lag
	reports int // batches that were sent
	refused int // and those that could not be, since the node was not connected
	took    time.Duration
	changes int // that were written
	broken  int // connections
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
	began := time.Now()
	changes, err := s.live(ctx, began.Add(lasts))
	took := time.Since(began)
	if err != nil {
		return result, err
	}
	if err := o.agents.awaitRevision(ctx, s.lag.newest()); err != nil {
		return result, err
	}
	after, err := o.server.use()
	if err != nil {
		return result, err
	}
	s.took, s.changes, s.broken = took, changes, o.agents.failures()-settled
	return s.result(lasts, before, after), nil
}

func (s *soaked) result(lasts time.Duration, before, after use) report.Result {
	return report.Result{
		Title: "A fleet lives with changes and reports",
		Text: fmt.Sprintf(`%s nodes on one server, for %v: %d changes of policies a second, each of which concerns all nodes, and %s mappings a
second from all nodes by turns. How long a node did not have a change is counted from the answer to its write, for the oldest
change of each message. Server and nodes share the machine's CPUs: where they are not enough, messages have more changes each.`,
			report.Thousands(float64(s.size.connected)), lasts, soakChanges, report.Thousands(soakMappings)),
		Budgets: []report.Budget{
			{Work: fmt.Sprintf("%s nodes connected and current: connections that broke", report.Thousands(float64(s.size.connected))), Promise: "0", Measured: strconv.Itoa(s.broken), Met: s.broken == 0},
			{Work: "the same: reports that found no connection", Promise: "0", Measured: strconv.Itoa(s.refused), Met: s.refused == 0},
		},
		Tables: []report.Table{{
			Columns: []string{"", ""},
			Rows: [][]string{
				{"changes a second", fmt.Sprintf("%.1f", float64(s.changes)/s.took.Seconds())},
				{"mappings a second", report.Thousands(float64(s.reports*soakBatch) / s.took.Seconds())},
				{"half of all messages brought a change within", milliseconds(s.lag.quantile(0.5))},
				{"99 of 100", milliseconds(s.lag.quantile(0.99))},
				{"all", milliseconds(s.lag.quantile(1))},
				{"CPU of the server", report.Percent((after.cpu - before.cpu).Seconds() / s.took.Seconds())},
				{"memory of the server at most", report.Bytes(after.peak)},
			},
		}},
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
	ticker := time.NewTicker(time.Second / soakChanges)
	defer ticker.Stop()
	for time.Now().Before(until) {
		select {
		case <-ctx.Done():
			return changes, ctx.Err()
		case <-ticker.C:
		}
		changes++
		if err := s.server.put(ctx, policyOf(changes%policiesOfMany, 2+changes)); err != nil {
			return changes, err
		}
		s.lag.changed()
	}
	return changes, nil
}

// report sends batches of mappings, of node after node, as fast as they are to come.
func (s *soaked) report(ctx context.Context, until time.Time) {
	ticker := time.NewTicker(soakTick)
	defer ticker.Stop()
	a := 0
	for time.Now().Before(until) {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for range soakMappings / soakBatch / int(time.Second/soakTick) {
			if _, err := s.agents.Agent(a % s.size.connected).Observe(s.some(a)); err != nil {
				s.refused++
			} else {
				s.reports++
			}
			a++
		}
	}
}

// some is the next batch of the node whose turn it is: of the names that it has, the next.
func (s *soaked) some(turn int) []*namewardv1.Mapping {
	const batches = 10 // that a node has before it begins anew
	node, at := turn%s.size.connected, turn/s.size.connected%batches*soakBatch
	batch := make([]*namewardv1.Mapping, soakBatch)
	seen, ends := timestamppb.Now(), timestamppb.New(s.ends.Add(time.Duration(turn/s.size.connected)*time.Second))
	for i := range batch {
		number := (at+i)*s.size.connected + node
		batch[i] = &namewardv1.Mapping{
			Domain: nameOf(number), Address: addressOf(number), Node: fmt.Sprintf("nodes/node-%d", node), Client: "10.0.0.7",
			FirstSeenTime: seen, LastSeenTime: seen, ExpireTime: ends,
		}
	}
	return batch
}

// lag counts how old the oldest change was that messages brought.
type lag struct {
	mu    sync.Mutex  // guards all below
	first uint64      // revision of the first change; 0 before it
	times []time.Time // of the changes
	has   []uint64    // by node: the revision that it has
	late  [60_000]int
}

// begin says which revision all have.
func (l *lag) begin(revision uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.first = revision + 1
}

// changed notes when the next revision was there to be had.
func (l *lag) changed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.times = append(l.times, time.Now())
}

func (l *lag) newest() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first + uint64(len(l.times)) - 1
}

func (l *lag) arrived(a fleet.Arrival) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.has) <= a.Node {
		l.has = append(l.has, 0)
	}
	before := l.has[a.Node]
	l.has[a.Node] = a.Revision
	// A change may arrive before its writer has the answer.
	oldest := max(before+1, l.first)
	if l.first == 0 || a.Revision < oldest || oldest >= l.first+uint64(len(l.times)) {
		return
	}
	late := a.At.Sub(l.times[oldest-l.first]).Milliseconds()
	l.late[min(max(late, 0), int64(len(l.late)-1))]++
}

// quantile returns, in milliseconds, within what a part of all messages came.
func (l *lag) quantile(part float64) float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	sum := 0
	for _, n := range l.late {
		sum += n
	}
	rest := int(math.Ceil(part * float64(sum)))
	for late, n := range l.late {
		if rest -= n; rest <= 0 {
			return float64(late)
		}
	}
	return math.NaN()
}
