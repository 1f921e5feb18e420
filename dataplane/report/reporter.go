// Package report tells the policy server what the node saw and how it does, on the stream that
// subscribe keeps. Mappings are read from the observe.Table, which is bounded and whose losses are
// counted there: first all that live, as a snapshot that replaces what the server knew, then each change.
// Flow events come from observe.Flows in the same way: all that are held, then each that was seen again.
// They go in numbered batches of which only a few may be unacknowledged; while the server is slow they
// stay where they are, and what changes often counts once. A stream that breaks loses nothing: the next
// one begins anew, and what the server knows already it is told again, as the same state.
package report

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/timestamppb"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/dataplane/observe"
)

const (
	batchMappings = 500                    // at most; a batch of the longest chains stays below 4 MiB
	batchFlows    = 500                    // at most, as well
	batchWindow   = 4                      // batches that may be unacknowledged
	gatherTime    = 100 * time.Millisecond // changes that come closer together share a batch
	flowsEvery    = time.Second            // so often is each flow event told at most
	statusEvery   = 10 * time.Second
	ackTimeout    = time.Minute // for one batch
)

var errUnacknowledged = errors.New("the server takes in no observations")

// Health says how the node does.
type Health interface {
	// Counters returns what the datapath counted since it was made, by name.
	Counters() (map[string]uint64, error)
	// Degraded returns the faults that persist, each with its remedy, and a channel that closes when
	// they may have changed.
	Degraded() ([]string, <-chan struct{})
	// Addresses puts into a report what the node always allows.
	Addresses(report *agentv1.StatusReport) error
}

// Reporter reports on one node.
type Reporter struct {
	node   node.ID
	table  *observe.Table
	flows  *observe.Flows
	health Health
	now    func() time.Time
	log    *slog.Logger
}

// New makes a reporter.
func New(id node.ID, table *observe.Table, flows *observe.Flows, health Health, log *slog.Logger) *Reporter {
	return &Reporter{node: id, table: table, flows: flows, health: health, now: time.Now, log: log}
}

// Report reports on one stream until ctx ends or the stream does.
func (r *Reporter) Report(ctx context.Context, send func(*agentv1.SyncRequest) error, acknowledged <-chan uint64) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return r.observations(ctx, send, acknowledged) })
	group.Go(func() error { return r.status(ctx, send) })
	return group.Wait()
}

// progress is how far one stream has come.
type progress struct {
	mappings, flows observe.Cursor
	begun, ended    bool // the snapshot of mappings
	sent, taken     uint64
	flowsDue        time.Time // not before then is a flow event told again
}

func (r *Reporter) observations(ctx context.Context, send func(*agentv1.SyncRequest) error, acknowledged <-chan uint64) error {
	var p progress
	for {
		if stuck := p.awaitWindow(ctx, acknowledged); stuck != nil || ctx.Err() != nil {
			return stuck
		}
		batch, news := r.next(&p)
		// An empty snapshot says that nothing lives.
		if len(batch.Mappings)+len(batch.FlowEvents) > 0 || batch.SnapshotBegin || batch.SnapshotEnd {
			p.sent++
			batch.Batch = p.sent
			if err := send(&agentv1.SyncRequest{Message: &agentv1.SyncRequest_Observations{Observations: batch}}); err != nil {
				return err
			}
		}
		if news.wait && !news.await(ctx) {
			return nil
		}
	}
}

// awaitWindow waits until one more batch may be under way. A server that takes in none for too long does not
// live, though it may answer pings.
func (p *progress) awaitWindow(ctx context.Context, acknowledged <-chan uint64) error {
	if p.sent-min(p.taken, p.sent) < batchWindow {
		return nil
	}
	patience := time.NewTimer(ackTimeout)
	defer patience.Stop()
	for p.sent-min(p.taken, p.sent) >= batchWindow {
		select {
		case <-ctx.Done():
			return nil
		case p.taken = <-acknowledged:
			patience.Reset(ackTimeout)
		case <-patience.C:
			return fmt.Errorf("%w for %v", errUnacknowledged, ackTimeout)
		}
	}
	return nil
}

// next makes the next batch, and says what to wait for behind it.
func (r *Reporter) next(p *progress) (*agentv1.Observations, news) {
	changed, next, more := r.table.Changes(p.mappings, batchMappings)
	p.mappings = next
	caughtUp := len(changed) < batchMappings
	batch := r.batch(changed)
	batch.SnapshotBegin = !p.begun
	batch.SnapshotEnd = !p.ended && caughtUp
	p.begun, p.ended = true, p.ended || caughtUp
	now := r.now()
	if now.Before(p.flowsDue) {
		return batch, news{wait: caughtUp, mappings: more, flowsDue: p.flowsDue}
	}
	flows, nextFlow, moreFlows := r.flows.Changes(p.flows, batchFlows)
	p.flows = nextFlow
	for i := range flows {
		batch.FlowEvents = append(batch.FlowEvents, flows[i].ToProto(r.node))
	}
	if len(flows) == batchFlows {
		return batch, news{}
	}
	if len(flows) > 0 {
		p.flowsDue, moreFlows = now.Add(flowsEvery), nil
	}
	return batch, news{wait: caughtUp, mappings: more, flows: moreFlows, flowsDue: p.flowsDue}
}

// batch leaves out what has expired and was not collected yet. What was dropped before is told: with an
// expiry that is past it ends at the server too.
func (r *Reporter) batch(changed []observe.Mapping) *agentv1.Observations {
	now := r.now()
	batch := &agentv1.Observations{SentTime: timestamppb.New(now)}
	for i := range changed {
		if changed[i].ExpiresAt.After(now) || changed[i].Dropped {
			batch.Mappings = append(batch.Mappings, changed[i].ToProto(r.node, now))
		}
	}
	return batch
}

// news is what a reporter waits for when it has told what there is.
type news struct {
	wait     bool // it has
	mappings <-chan struct{}
	flows    <-chan struct{} // nil before flowsDue
	flowsDue time.Time
}

// await waits for a change, and then a little for others; it reports whether ctx still lives.
func (n news) await(ctx context.Context) bool {
	var due <-chan time.Time
	if n.flows == nil {
		timer := time.NewTimer(time.Until(n.flowsDue))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-ctx.Done():
		return false
	case <-due:
		return true
	case <-n.mappings:
	case <-n.flows:
	}
	timer := time.NewTimer(gatherTime)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

func (r *Reporter) status(ctx context.Context, send func(*agentv1.SyncRequest) error) error {
	ticker := time.NewTicker(statusEvery)
	defer ticker.Stop()
	degraded, changed := r.health.Degraded()
	for {
		counters, err := r.health.Counters()
		if err != nil {
			r.log.Warn("counters not read", "err", err)
		}
		report := &agentv1.StatusReport{Counters: counters, Degraded: degraded}
		if err := r.health.Addresses(report); err != nil {
			r.log.Warn("addresses not read", "err", err)
		}
		if err := send(&agentv1.SyncRequest{Message: &agentv1.SyncRequest_Status{Status: report}}); err != nil {
			return err
		}
		for due := false; !due; {
			select {
			case <-ctx.Done():
				return nil
			case <-ticker.C:
				due = true
			case <-changed:
			}
			before := degraded
			degraded, changed = r.health.Degraded()
			due = due || !slices.Equal(before, degraded)
		}
	}
}
