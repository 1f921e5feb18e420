package ingest

import (
	"context"
	"errors"
	"math"
	"slices"
	"time"
)

// ErrSlow is returned by Watch.Next when the reader fell so far behind that changes were lost.
var ErrSlow = errors.New("the reader is too slow")

// watchBuffer is how many changes a reader may be behind: a second of a busy fleet.
const watchBuffer = 16384

// Change says that a mapping lives as given, or has ended.
type Change struct {
	Mapping *Mapping
	Ended   bool
}

// Watch follows the mappings that a filter selects. Close must be called.
type Watch struct {
	// Live is what lived when the watch began, in order.
	Live []*Mapping

	table  *Table
	filter Filter
	// changes is closed when one did not fit, under table.mu.
	changes chan Change
}

// Watch begins a watch.
func (t *Table) Watch(filter Filter, now time.Time) *Watch {
	return t.WatchAhead(filter, now, watchBuffer)
}

// WatchAhead begins a watch whose reader may be so many changes behind.
func (t *Table) WatchAhead(filter Filter, now time.Time, ahead int) *Watch {
	w := &Watch{table: t, filter: filter, changes: make(chan Change, ahead)}
	t.mu.Lock()
	t.watches[w] = struct{}{}
	t.mu.Unlock()
	// From here on no change is missed. One that comes while the snapshot is taken may be in both, and what follows
	// the snapshot ends with what is true.
	s := &scan{filter: filter, now: now, left: math.MaxInt}
	for !s.over {
		t.mu.RLock()
		s.step(t, scanAtOnce)
		t.mu.RUnlock()
	}
	w.Live = s.page.Mappings
	slices.SortFunc(w.Live, func(a, b *Mapping) int { return a.Compare(b.Position) })
	w.Live = slices.CompactFunc(w.Live, func(a, b *Mapping) bool { return a.Position == b.Position })
	return w
}

// Next waits for a change. ErrSlow when changes were lost, the error of ctx when it ends.
func (w *Watch) Next(ctx context.Context) (Change, error) {
	select {
	case <-ctx.Done():
		return Change{}, ctx.Err()
	case change, ok := <-w.changes:
		if !ok {
			return Change{}, ErrSlow
		}
		return change, nil
	}
}

// Changes returns the changes; it is closed when some were lost.
func (w *Watch) Changes() <-chan Change { return w.changes }

// Close ends the watch.
func (w *Watch) Close() {
	w.table.mu.Lock()
	defer w.table.mu.Unlock()
	delete(w.table.watches, w)
}

// announce tells those who watch that now lives in place of before, either of which may be nil. Who has no
// room left for it is cut off. t.mu is held.
func (t *Table) announce(now, before *Mapping) {
	for w := range t.watches {
		change := Change{Mapping: now}
		switch {
		case now != nil && w.filter.Match(now):
		case before != nil && w.filter.Match(before):
			change = Change{Mapping: before, Ended: true}
		default:
			continue
		}
		select {
		case w.changes <- change:
		default:
			delete(t.watches, w)
			close(w.changes)
			t.stats.CutOff++
		}
	}
}
