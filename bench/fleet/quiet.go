package fleet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nameward/nameward/bench/measure"
	"github.com/nameward/nameward/bench/report"
)

// told is what was seen of a fleet that is told of one change after the other, each when all nodes have the one before.
type told struct {
	server   *server
	agents   *agents
	revision uint64 // which every node has
	changes  int
	delay    measure.Series // of each node and change
	written  measure.Series
	cpu      time.Duration
}

// change has so many changes more.
func (t *told) change(ctx context.Context, count int) error {
	before, err := t.server.use()
	if err != nil {
		return err
	}
	for range count {
		pause(ctx, quietPause)
		t.changes++
		began := time.Now()
		if err := t.server.put(ctx, policyOf(0, t.changes)); err != nil {
			return err
		}
		changed := time.Now()
		t.written.Values = append(t.written.Values, inMilliseconds(changed.Sub(began)))
		if err := t.agents.awaitRevision(ctx, t.revision+1); err != nil {
			return err
		}
		t.revision = t.agents.Agent(kept).State().Revision
		for _, d := range delays(t.agents.arrivals.take(), t.revision, []time.Time{changed}) {
			t.delay.Values = append(t.delay.Values, inMilliseconds(d))
		}
	}
	pause(ctx, quietPause)
	after, err := t.server.use()
	t.cpu += after.cpu - before.cpu
	return err
}

// cpuPerMillion is the server's for a million deliveries, in seconds.
func (t *told) cpuPerMillion() float64 { return t.cpu.Seconds() / float64(len(t.delay.Values)) * 1e6 }

func (t *told) row(name string, memory float64) []string {
	return []string{
		name, milliseconds(t.delay.Median()), milliseconds(t.delay.Quantile(0.99)), seconds(t.cpuPerMillion()), report.Bytes(memory),
	}
}

// quietRounds is how many turns the servers take.
const quietRounds = 5

// besideBare has a fleet told of changes by turns with one of the same size at a bare server, and returns the latter's,
// and its memory a node.
func besideBare(ctx context.Context, bin string, nodes, changes int, ours *told) (_ *told, memory float64, err error) {
	bare := &told{}
	if bare.server, err = open(ctx, bareOf(bin)); err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, bare.server.close()) }()
	before, err := bare.server.use()
	if err != nil {
		return nil, 0, err
	}
	bare.agents = joinBare(ctx, bare.server, nodes)
	defer func() { err = errors.Join(err, bare.agents.stop()) }()
	if err := bare.agents.awaitRevision(ctx, 1); err != nil {
		return nil, 0, err
	}
	after, err := bare.server.use()
	if err != nil {
		return nil, 0, err
	}
	bare.revision = bare.agents.Agent(0).State().Revision
	bare.agents.arrivals.take()
	for round := range quietRounds {
		count := changes*(round+1)/quietRounds - changes*round/quietRounds
		for _, t := range []*told{ours, bare} {
			if err := t.change(ctx, count); err != nil {
				return nil, 0, err
			}
		}
	}
	return bare, (after.resident - before.resident) / float64(nodes), nil
}

// Works of changes at a quiet rate.
const (
	quietHalf = "one change: half of the nodes within"
	quietMost = "one change: 99 of 100 within"
	quietCPU  = "one change: server CPU, a million deliveries"
)

// quiet has one change after the other, each when all nodes have the one before, by turns with a bare server.
func (r *synced) quiet(ctx context.Context, bin string) error {
	ours := &told{server: r.server, agents: r.agents, revision: r.revision}
	if r.keys != nil {
		if err := ours.change(ctx, r.size.quiet); err != nil {
			return err
		}
		r.budgetOfQuiet(ours)
		for _, work := range []string{quietHalf, quietMost, quietCPU} {
			r.beside(work, "", "beside what it takes without TLS (fleet-sync), each message is encrypted for each node.")
		}
		return nil
	}
	bare, memory, err := besideBare(ctx, bin, r.size.nodes, r.size.quiet, ours)
	if err != nil {
		return err
	}
	r.budgetOfQuiet(ours)
	r.result.Tables = append(r.result.Tables, report.Table{
		Caption: "One change, beside the least that gRPC takes: a bare server (bench/fleet/bare) sends ready bytes on as many streams, and reads what agents say without looking into it; by turns",
		Columns: []string{"", "median", "99 of 100 within", "server CPU, a million deliveries", "memory a node"},
		Rows:    [][]string{ours.row("policy server", r.memory), bare.row("bare gRPC stream", memory)},
	})
	for work, bare := range map[string]string{
		"first sync: memory a node": report.Bytes(memory),
		quietHalf:                   milliseconds(bare.delay.Median()),
		quietMost:                   milliseconds(bare.delay.Quantile(0.99)),
		quietCPU:                    seconds(bare.cpuPerMillion()),
	} {
		r.beside(work, "bare gRPC stream: "+bare, "a server that does nothing but send ready bytes takes "+bare+" of it on this machine.")
	}
	return nil
}

func (r *synced) budgetOfQuiet(ours *told) {
	r.revision = ours.revision
	delay, cpu := ours.delay, ours.cpuPerMillion()
	r.text = append(r.text, quantiles("a change at a quiet rate", delay, milliseconds), quantiles("its write", ours.written, milliseconds))
	r.budget(quietHalf, fmt.Sprintf("≤ %g ms", r.quietHalf), milliseconds(delay.Median()), delay.Median() <= r.quietHalf)
	r.budget(quietMost, fmt.Sprintf("≤ %g ms", r.quietMost), milliseconds(delay.Quantile(0.99)), delay.Quantile(0.99) <= r.quietMost)
	r.budget(quietCPU, fmt.Sprintf("≤ %g s", r.quietCPU), seconds(cpu), cpu <= r.quietCPU)
}
