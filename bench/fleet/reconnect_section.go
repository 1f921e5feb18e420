package fleet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nameward/nameward/bench/report"
	"github.com/nameward/nameward/e2e/fleet"
)

const (
	reconnectBudget = 60.0 // seconds
	// policiesOfMany is how many policies a fleet has of which the connections are what is measured.
	policiesOfMany = 100
)

// returned is what was seen of a fleet whose server was killed.
type returned struct {
	came, current, back, again time.Duration
	connected                  use
	resumed                    int
}

// reconnect measures many connections: until all are there, and until all are back after the server died.
func reconnect(ctx context.Context, bin string, size size) (result report.Result, err error) {
	s, err := open(ctx, bin)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.putMany(ctx, policiesOfMany, 0, policiesOfMany); err != nil {
		return result, err
	}
	began := time.Now()
	a := join(ctx, s, size.connected)
	defer func() { err = errors.Join(err, a.stop()) }()
	if err := a.awaitRevision(ctx, policiesOfMany); err != nil {
		return result, err
	}
	r := returned{came: time.Since(began)}
	if r.connected, err = s.use(); err != nil {
		return result, err
	}
	if err := r.killAndReturn(ctx, s, a); err != nil {
		return result, err
	}
	return r.result(size), nil
}

// killAndReturn has one more change before and behind the death of the server, so that it is sure that all are current
// and not only connected.
func (r *returned) killAndReturn(ctx context.Context, s *server, a *agents) (err error) {
	if r.current, err = changeAll(ctx, s, a, 1); err != nil {
		return err
	}
	if err := s.kill(); err != nil {
		return err
	}
	began := time.Now()
	if err := s.start(ctx); err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := a.Await(waiting, func(s fleet.State) bool { return s.Connected && s.Streams > 1 }); err != nil {
		return err
	}
	r.back = time.Since(began)
	if r.again, err = changeAll(ctx, s, a, 2); err != nil {
		return err
	}
	for _, state := range a.States() {
		r.resumed += state.Resumed
	}
	return nil
}

func (r *returned) result(size size) report.Result {
	nodes := report.Thousands(float64(size.connected))
	return report.Result{
		Title: "A fleet comes back",
		Text: fmt.Sprintf(`%s nodes with a connection each, on one server that is killed and started again. Agents wait a random time that
grows up to 10 seconds before they try again. %s of them went on with what they held.`, nodes, report.Thousands(float64(r.resumed))),
		Tables: []report.Table{{
			Caption: nodes + " nodes", Columns: []string{"", "took"},
			Rows: [][]string{
				{"all connect at once to a server that does not know them", seconds(r.came.Seconds())},
				{"a change reaches all", seconds(r.current.Seconds())},
				{"all are back after the server was killed", seconds(r.back.Seconds())},
				{"a change reaches all again", seconds(r.again.Seconds())},
				{"resident memory of the server with all connected", report.Bytes(r.connected.resident)},
			},
		}},
		Budgets: []report.Budget{{
			Work: nodes + " nodes on one server: all back after a restart", Promise: "≤ 60 s",
			Measured: seconds(r.back.Seconds()), Met: r.back.Seconds() <= reconnectBudget,
		}},
	}
}

// changeAll changes a policy and returns how long it took until every node had it.
func changeAll(ctx context.Context, s *server, a *agents, version int) (time.Duration, error) {
	var newest uint64
	for _, state := range a.States() {
		newest = max(newest, state.Revision)
	}
	if err := s.put(ctx, policyOf(0, version)); err != nil {
		return 0, err
	}
	began := time.Now()
	err := a.awaitRevision(ctx, newest+1)
	return time.Since(began), err
}
