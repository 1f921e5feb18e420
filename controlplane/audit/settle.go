package audit

import (
	"fmt"
	"time"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/controlplane/store"
)

// Settler knows what became of changes.
type Settler interface {
	// FateOf is that of store.Store.
	FateOf(name string, before uint64, content []byte) (store.Fate, uint64, error)
}

// settle writes the outcomes that are missing in the last file: the process died, or the machine, before they were
// written. An event whose fate is not known any more stays without one.
func (l *Log) settle(settler Settler) error {
	if l.segments.file == nil {
		return nil
	}
	file, err := readFile(l.segments.path(l.segments.number))
	if err != nil {
		return err
	}
	unsettled := 0
	for i, lines := range file.events {
		if lines.ended() {
			continue
		}
		event, err := lines.read()
		if err != nil || event.GetOutcome() != namewardv1.AuditEvent_OUTCOME_UNSPECIFIED {
			continue // damaged, or an event of one line
		}
		end, err := fate(settler, event, file.events[i+1:])
		if err != nil {
			return err
		}
		l.metrics.settled.Inc()
		if end == nil {
			unsettled++
			continue
		}
		line, err := encode(end)
		if err != nil {
			return err
		}
		if err := l.segments.note(line); err != nil {
			// There is a later start, and no change before there is room.
			l.log.Warn("outcome of before a crash not written", "err", err)
			return nil
		}
	}
	if unsettled > 0 {
		l.log.Warn("of changes under way when the server died it is not known whether they were made", "events", unsettled)
	}
	return nil
}

// fate returns the last line of an event, nil where it is not known. What the store holds says nothing of a change on
// which another was built later.
func fate(settler Settler, event *namewardv1.AuditEvent, later []eventLines) (*namewardv1.AuditEvent, error) {
	for _, lines := range later {
		next, err := lines.read()
		if err == nil && next.GetResource() == event.GetResource() && next.GetBeforeRevision() != event.GetBeforeRevision() {
			return nil, nil
		}
	}
	fate, revision, err := settler.FateOf(event.GetResource(), event.GetBeforeRevision(), event.GetContentDigest())
	if err != nil {
		return nil, fmt.Errorf("settle %s: %w", event.GetName(), err)
	}
	switch fate {
	case store.FateCommitted:
		end := ending(event.GetName(), revision, nil, time.Now())
		end.Reason = "found at the start after a crash"
		return end, nil
	case store.FateNotCommitted:
		end := ending(event.GetName(), 0, nil, time.Now())
		end.Outcome, end.Reason = namewardv1.AuditEvent_NOT_COMMITTED, "the server died before it was made"
		return end, nil
	}
	return nil, nil
}
