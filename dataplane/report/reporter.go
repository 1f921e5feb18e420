// Package report tells the policy server what the node saw and how it does, on the stream that
// subscribe keeps. Mappings are read from the observe.Table, which is bounded and whose losses are
// counted there: first all that live, as a snapshot that replaces what the server knew, then each change.
// They go in numbered batches of which only a few may be unacknowledged; while the server is slow they
// stay in the table, where a mapping that changes often counts once. A stream that breaks loses
// nothing: the next one begins with a snapshot.
package report

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/dataplane/observe"
)

const (
	batchMappings = 500                    // at most; a batch of the longest chains stays below 4 MiB
	batchWindow   = 4                      // batches that may be unacknowledged
	gatherTime    = 100 * time.Millisecond // changes that come closer together share a batch
	statusEvery   = 10 * time.Second
)

// Health says how the node does.
type Health interface {
	// Counters returns what the datapath counted since it was made, by name.
	Counters() (map[string]uint64, error)
	// Degraded returns the faults that persist, each with its remedy, and a channel that closes when
	// they may have changed.
	Degraded() ([]string, <-chan struct{})
}

// Reporter reports on one node.
type Reporter struct {
	node   node.ID
	table  *observe.Table
	health Health
	log    *slog.Logger
}

// New makes a reporter.
func New(id node.ID, table *observe.Table, health Health, log *slog.Logger) *Reporter {
	return &Reporter{node: id, table: table, health: health, log: log}
}

// Report reports on one stream until ctx ends or the stream does.
func (r *Reporter) Report(ctx context.Context, send func(*agentv1.SyncRequest) error, acknowledged <-chan uint64) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return r.mappings(ctx, send, acknowledged) })
	group.Go(func() error { return r.status(ctx, send) })
	return group.Wait()
}

func (r *Reporter) mappings(ctx context.Context, send func(*agentv1.SyncRequest) error, acknowledged <-chan uint64) error {
	var cursor observe.Cursor
	var sent, taken uint64
	begun, ended := false, false
	for {
		for sent-min(taken, sent) >= batchWindow {
			select {
			case <-ctx.Done():
				return nil
			case taken = <-acknowledged:
			}
		}
		changed, next, more := r.table.Changes(cursor, batchMappings)
		cursor = next
		caughtUp := len(changed) < batchMappings
		batch := r.batch(changed)
		batch.SnapshotBegin = !begun
		batch.SnapshotEnd = !ended && caughtUp
		// An empty snapshot says that nothing lives.
		if len(batch.Mappings) > 0 || batch.SnapshotBegin || batch.SnapshotEnd {
			sent++
			batch.Batch = sent
			if err := send(&agentv1.SyncRequest{Message: &agentv1.SyncRequest_Observations{Observations: batch}}); err != nil {
				return err
			}
		}
		begun, ended = true, ended || caughtUp
		if caughtUp && !r.await(ctx, more) {
			return nil
		}
	}
}

// batch leaves out what has expired and was not collected yet.
func (r *Reporter) batch(changed []observe.Mapping) *agentv1.Observations {
	batch := &agentv1.Observations{}
	now := time.Now()
	for i := range changed {
		if changed[i].ExpiresAt.After(now) {
			batch.Mappings = append(batch.Mappings, changed[i].ToProto(r.node))
		}
	}
	return batch
}

// await waits for a change, and then a little for others; it reports whether ctx still lives.
func (r *Reporter) await(ctx context.Context, more <-chan struct{}) bool {
	select {
	case <-ctx.Done():
		return false
	case <-more:
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
