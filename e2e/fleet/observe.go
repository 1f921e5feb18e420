package fleet

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

// As agents do: see dataplane/report.
const (
	batchMappings = 500
	batchWindow   = 4 // batches that may be unacknowledged
)

// remembered are the mappings that live on a node, in the order in which they were seen.
type remembered struct {
	order []*namewardv1.Mapping
	at    map[mappingKey]int
}

type mappingKey struct{ domain, address string }

func (r *remembered) add(mappings []*namewardv1.Mapping) {
	if r.at == nil {
		r.at = map[mappingKey]int{}
	}
	for _, m := range mappings {
		key := mappingKey{m.GetDomain(), m.GetAddress()}
		if at, ok := r.at[key]; ok {
			r.order[at] = m
			continue
		}
		r.at[key] = len(r.order)
		r.order = append(r.order, m)
	}
}

// alive forgets what has ended, and returns the rest.
func (r *remembered) alive(now time.Time) []*namewardv1.Mapping {
	all := r.order
	r.order, r.at = nil, nil
	for _, m := range all {
		if m.GetExpireTime().AsTime().After(now) {
			r.add([]*namewardv1.Mapping{m})
		}
	}
	return slices.Clone(r.order)
}

// now returns mappings as they were seen last.
func (r *remembered) now(mappings []*namewardv1.Mapping) []*namewardv1.Mapping {
	newest := make([]*namewardv1.Mapping, 0, len(mappings))
	for _, m := range mappings {
		if at, ok := r.at[mappingKey{m.GetDomain(), m.GetAddress()}]; ok {
			m = r.order[at]
		}
		newest = append(newest, m)
	}
	return newest
}

// Observe reports mappings as the next batch of the stream that is open, and returns which that is. An agent that
// remembers has seen them, whatever it returns: it tells them on its next stream.
func (a *Agent) Observe(mappings []*namewardv1.Mapping) (Batch, error) {
	a.reporting.Lock()
	defer a.reporting.Unlock()
	a.mu.Lock()
	if a.live != nil {
		a.live.add(mappings)
	}
	if !a.state.Connected {
		a.mu.Unlock()
		return Batch{}, fmt.Errorf("%s: %w", a.name, errDisconnected)
	}
	l, streams := a.link, a.state.Streams
	a.mu.Unlock()
	number, err := a.report(l, &agentv1.Observations{Mappings: mappings})
	return Batch{streams, number}, err
}

// report sends a batch. It is called under reporting.
func (a *Agent) report(l *link, batch *agentv1.Observations) (number uint64, err error) {
	a.mu.Lock()
	if a.link != l {
		a.mu.Unlock()
		return 0, fmt.Errorf("%s: %w", a.name, errDisconnected)
	}
	a.batch++
	batch.Batch = a.batch
	a.mu.Unlock()
	batch.SentTime = timestamppb.Now()
	return batch.GetBatch(), a.send(l, &agentv1.SyncRequest{Message: &agentv1.SyncRequest_Observations{Observations: batch}})
}

// tellSnapshot tells on a new stream all that lives on the node, where it remembers that: the first part at once, the
// others as the server takes them in.
func (a *Agent) tellSnapshot(ctx context.Context, l *link) error {
	if a.live == nil {
		return nil
	}
	a.reporting.Lock()
	defer a.reporting.Unlock()
	a.mu.Lock()
	alive := a.live.alive(time.Now())
	a.mu.Unlock()
	rest, err := a.tellPart(l, alive, true)
	if err == nil && len(rest) > 0 {
		time.AfterFunc(0, func() { a.tellRest(ctx, l, rest) })
	}
	return err
}

// tellPart tells one batch of a snapshot, and returns what is left. It is called under reporting.
func (a *Agent) tellPart(l *link, alive []*namewardv1.Mapping, begin bool) (rest []*namewardv1.Mapping, err error) {
	n := min(len(alive), batchMappings)
	a.mu.Lock()
	part := a.live.now(alive[:n])
	a.mu.Unlock()
	_, err = a.report(l, &agentv1.Observations{Mappings: part, SnapshotBegin: begin, SnapshotEnd: n == len(alive)})
	return alive[n:], err
}

// tellRest goes on with a snapshot, until it is told or the stream has ended.
func (a *Agent) tellRest(ctx context.Context, l *link, rest []*namewardv1.Mapping) {
	for len(rest) > 0 && ctx.Err() == nil {
		a.mu.Lock()
		full := a.batch-min(a.state.Batch, a.batch) >= batchWindow
		a.mu.Unlock()
		if full {
			pause(ctx, scanInterval)
			continue
		}
		a.reporting.Lock()
		var err error
		rest, err = a.tellPart(l, rest, false)
		a.reporting.Unlock()
		if err != nil {
			return // what broke the stream is told by its reader
		}
	}
}
