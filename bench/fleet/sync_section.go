package fleet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nameward/nameward/bench/measure"
	"github.com/nameward/nameward/bench/report"
)

// promises are the budgets of the rows that are compared with others: see docs.
type promises struct {
	syncTime, syncCPU, syncMemory  float64 // seconds, seconds, bytes a node
	quietHalf, quietMost, quietCPU float64 // ms, ms, seconds a million deliveries
	burstRate                      float64
}

var (
	inPlainText = promises{3, 1, 50e3, 15, 50, 40, 2_500}
	byMutualTLS = promises{4.5, 1.6, 85e3, 20, 55, 55, 2_000}
)

const (
	busyMost, busyCPU = 60.0, 12.0
	burstMemory       = 180e6
)

// quietPause is above the time for which acknowledgements are gathered.
const quietPause = 250 * time.Millisecond

// synced is one run of all that is measured of a fleet that is told of policies.
type synced struct {
	keys *keys
	promises
	server *server
	agents *agents
	size   size
	result report.Result
	// revision is that which every node has. Once all nodes are known, nothing but writes of policies moves it, each by
	// one.
	revision uint64
	text     [][]string
	memory   float64 // a node
}

func syncs(ctx context.Context, bin string, size size) (report.Result, error) {
	r := &synced{size: size, promises: inPlainText}
	r.result = report.Result{
		Title: "A fleet is told of policies",
		Text: fmt.Sprintf(`%s policies of about 200 bytes each, and %s nodes with a connection each. *First sync* is from the moment at which all
agents begin to connect until the last has all policies. A change is counted from the answer to its write until each node has
it. CPU is the server's alone, the writes and the nodes' acknowledgements among it; memory a node is what the server's
resident memory grew by while all came.`, report.Thousands(float64(size.policies)), report.Thousands(float64(size.nodes))),
	}
	return r.measure(ctx, bin, r.first, r.quiet, r.busy, r.burst)
}

// securedSyncs is what of it has promises of its own with mutual TLS.
func securedSyncs(ctx context.Context, bin string, size size) (result report.Result, err error) {
	r := &synced{size: size, promises: byMutualTLS}
	if r.keys, err = newKeys(size.nodes); err != nil {
		return result, err
	}
	r.result = report.Result{
		Title: "A fleet is told of policies, by mutual TLS",
		Text:  "As above, with a certificate for the server, its operator and each node (ECDSA P-256, TLS 1.3).",
	}
	result, err = r.measure(ctx, bin, r.first, r.quiet, r.burst)
	return result, errors.Join(err, r.keys.remove())
}

func (r *synced) measure(ctx context.Context, bin string, steps ...func(context.Context, string) error) (report.Result, error) {
	for _, step := range steps {
		if err := step(ctx, bin); err != nil {
			return r.result, errors.Join(err, r.close())
		}
	}
	r.result.Tables = append(r.result.Tables, report.Table{
		Caption: "Until nodes know", Columns: []string{"", "median", "quartiles", "99 of 100 within"}, Rows: r.text,
	})
	_, err := r.agents.Agent(kept).Rules()
	return r.result, errors.Join(err, r.close())
}

func (r *synced) close() (err error) {
	if r.agents != nil {
		err = r.agents.stop()
		r.agents = nil
	}
	if r.server != nil {
		err = errors.Join(err, r.server.close())
		r.server = nil
	}
	return err
}

// first has all nodes come to a new server that has all policies, again and again; the last one stays.
func (r *synced) first(ctx context.Context, bin string) (err error) {
	var took, cpu, memory measure.Series
	for range r.size.syncs {
		if err := r.close(); err != nil {
			return err
		}
		if r.server, err = openWith(ctx, bin, r.keys); err != nil {
			return err
		}
		if err := r.server.putMany(ctx, r.size.policies, 0, r.size.policies); err != nil {
			return err
		}
		// As a server that has run for a while: what the writes left behind would pass for memory of the nodes.
		if err := errors.Join(r.server.stop(), r.server.start(ctx)); err != nil {
			return err
		}
		before, err := r.server.use()
		if err != nil {
			return err
		}
		began := time.Now()
		r.agents = join(ctx, r.server, r.size.nodes)
		if err := r.agents.awaitRevision(ctx, uint64(r.size.policies)); err != nil {
			return err
		}
		r.revision = r.agents.Agent(kept).State().Revision
		last := began
		for _, arrival := range r.agents.arrivals.take() {
			last = latest(last, arrival.At)
		}
		after, err := r.server.use()
		if err != nil {
			return err
		}
		took.Values = append(took.Values, last.Sub(began).Seconds())
		cpu.Values = append(cpu.Values, (after.cpu - before.cpu).Seconds())
		memory.Values = append(memory.Values, (after.resident-before.resident)/float64(r.size.nodes))
	}
	r.budget("first sync: time", fmt.Sprintf("≤ %g s", r.syncTime), report.Spread(took, seconds), took.Median() <= r.syncTime)
	r.budget("first sync: server CPU", fmt.Sprintf("≤ %g s", r.syncCPU), report.Spread(cpu, seconds), cpu.Median() <= r.syncCPU)
	r.memory = memory.Median()
	r.budget("first sync: memory a node", fmt.Sprintf("≤ %g KB", r.syncMemory/1e3), report.Spread(memory, report.Bytes), memory.Median() <= r.syncMemory)
	if r.keys != nil {
		r.beside("first sync: server CPU", "", "beside what it takes without TLS (fleet-sync), each node's handshake is a signature and the check of a certificate, and all that it is told is encrypted for it.")
	}
	return nil
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func (r *synced) cpuPerMillion(before use, deliveries int) (float64, error) {
	after, err := r.server.use()
	return (after.cpu - before.cpu).Seconds() / float64(deliveries) * 1e6, err
}

func (r *synced) budget(work, promise, measured string, met bool) {
	r.result.Budgets = append(r.result.Budgets, report.Budget{Work: r.named(work), Promise: promise, Measured: measured, Met: met})
}

// named is a work with its size.
func (r *synced) named(work string) string {
	if r.keys != nil {
		work = "mTLS, " + work
	}
	return fmt.Sprintf("%s (%s policies, %s nodes)", work, report.Count(float64(r.size.policies)), report.Count(float64(r.size.nodes)))
}

// beside says of a budget what others took, and what stands in the way if it is not met.
func (r *synced) beside(work, others, note string) {
	for i := range r.result.Budgets {
		if b := &r.result.Budgets[i]; b.Work == r.named(work) {
			b.Beside = others
			if !b.Met {
				b.Note = note
			}
		}
	}
}

const busyInterval = 20 * time.Millisecond

// busy has 50 changes a second.
func (r *synced) busy(ctx context.Context, _ string) error {
	before, err := r.server.use()
	if err != nil {
		return err
	}
	ticker := time.NewTicker(busyInterval)
	defer ticker.Stop()
	var changed []time.Time
	clock := startClock(before)
	for end := time.Now().Add(r.size.busyTime); time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		if err := r.server.put(ctx, policyOf(1+len(changed)%10, 1+len(changed))); err != nil {
			return err
		}
		changed = append(changed, time.Now())
	}
	first := r.revision + 1
	r.revision += uint64(len(changed))
	if err := r.agents.awaitRevision(ctx, r.revision); err != nil {
		return err
	}
	shares, err := clock.stop(r.server)
	if err != nil {
		return err
	}
	pause(ctx, quietPause)
	var delay measure.Series
	for _, d := range delays(r.agents.arrivals.take(), first, changed) {
		delay.Values = append(delay.Values, inMilliseconds(d))
	}
	cpu, err := r.cpuPerMillion(before, len(delay.Values))
	if err != nil {
		return err
	}
	r.text = append(r.text, quantiles("50 changes a second", delay, milliseconds))
	r.budget("50 changes a second: 99 of 100 within", "≤ 60 ms", milliseconds(delay.Quantile(0.99)), delay.Quantile(0.99) <= busyMost)
	r.budget("50 changes a second: server CPU, a million deliveries", "≤ 12 s", seconds(cpu), cpu <= busyCPU)
	for _, work := range []string{"50 changes a second: 99 of 100 within", "50 changes a second: server CPU, a million deliveries"} {
		r.beside(work, "", shares)
	}
	return nil
}

// burst has as many changes as operators can write.
func (r *synced) burst(ctx context.Context, _ string) error {
	before, err := r.server.use()
	if err != nil {
		return err
	}
	clock := startClock(before)
	began := time.Now()
	if err := r.server.putMany(ctx, r.size.policies, 100*r.size.policies, r.size.burst); err != nil {
		return err
	}
	written := time.Since(began)
	r.revision += uint64(r.size.burst)
	if err := r.agents.awaitRevision(ctx, r.revision); err != nil {
		return err
	}
	last := began
	for _, arrival := range r.agents.arrivals.take() {
		last = latest(last, arrival.At)
	}
	after, err := r.server.use()
	if err != nil {
		return err
	}
	shares := clock.share(after)
	rate := float64(r.size.burst) / last.Sub(began).Seconds()
	r.result.Tables = append(r.result.Tables, report.Table{
		Caption: fmt.Sprintf("%s changes by %d operators at once", report.Thousands(float64(r.size.burst)), writers),
		Columns: []string{"", "took", "a second", "server CPU, a thousand changes"},
		Rows: [][]string{
			{"all written", seconds(written.Seconds()), report.Thousands(float64(r.size.burst) / written.Seconds()), ""},
			{"all at every node", seconds(last.Sub(began).Seconds()), report.Thousands(rate), seconds((after.cpu - before.cpu).Seconds() / float64(r.size.burst) * 1000)},
		},
	})
	r.budget("burst: changes a second that reach all", "≥ "+report.Thousands(r.burstRate), report.Thousands(rate), rate >= r.burstRate)
	r.budget("burst: server memory after", "≤ 180 MB", report.Bytes(after.resident), after.resident <= burstMemory)
	pause(ctx, r.size.burstPause)
	later, err := r.server.use()
	if err != nil {
		return err
	}
	r.beside("burst: changes a second that reach all", "", shares)
	r.beside("burst: server memory after", "", fmt.Sprintf("what the burst left is not collected yet when the last node has the last change; %v later: %s.", r.size.burstPause, report.Bytes(later.resident)))
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
