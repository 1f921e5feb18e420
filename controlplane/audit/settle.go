package audit

import (
	"fmt"
	"slices"
	"time"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/controlplane/store"
)

// Settler knows what became of changes.
type Settler interface {
	// FateOf is that of store.Store.
	FateOf(name string, before uint64, content []byte) (store.Fate, uint64, error)
}

// base is what a change was built on. Of all changes built on one base, one is committed at most.
type base struct {
	resource string
	revision uint64
}

func baseOf(event *namewardv1.AuditEvent) base {
	return base{event.GetResource(), event.GetBeforeRevision()}
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
	events, won := gather(file)
	var ends, unknown []*namewardv1.AuditEvent
	for i, event := range events {
		if event.GetOutcome() != namewardv1.AuditEvent_OUTCOME_UNSPECIFIED {
			continue
		}
		l.metrics.settled.Inc()
		end, err := fate(settler, event, events[i+1:])
		switch {
		case err != nil:
			return err
		case end == nil:
			unknown = append(unknown, event)
			continue
		case end.GetOutcome() == namewardv1.AuditEvent_COMMITTED:
			won[baseOf(event)] = true
		}
		ends = append(ends, end)
	}
	unsettled := 0
	for _, event := range unknown {
		if !won[baseOf(event)] {
			unsettled++
			continue
		}
		ends = append(ends, unmade(event, "another change came first"))
	}
	if unsettled > 0 {
		l.log.Warn("of changes under way when the server died it is not known whether they were made", "events", unsettled)
	}
	return l.writeEnds(ends)
}

// gather returns the changes in the file, and which bases have one that is committed. Where no outcome is missing,
// which is the rule, nothing has to be read.
func gather(file *fileEvents) (events []*namewardv1.AuditEvent, won map[base]bool) {
	won = map[base]bool{}
	if !slices.ContainsFunc(file.events, func(lines eventLines) bool { return !lines.ended() }) {
		return nil, won
	}
	for _, lines := range file.events {
		event, err := lines.read()
		if err != nil || event.GetOutcome() == namewardv1.AuditEvent_DENIED {
			continue
		}
		events = append(events, event)
		if event.GetOutcome() == namewardv1.AuditEvent_COMMITTED {
			won[baseOf(event)] = true
		}
	}
	return events, won
}

// writeEnds writes last lines. Without room for them there is a later start, and no change before there is room.
func (l *Log) writeEnds(ends []*namewardv1.AuditEvent) error {
	for _, end := range ends {
		line, err := encodeEnd(end)
		if err != nil {
			return err
		}
		if err := l.segments.noteHere(line); err != nil {
			l.log.Warn("outcome of before a crash not written", "err", err)
			return nil
		}
	}
	return nil
}

// fate returns the last line of an event, nil where it is not known. Where a later change was built on what this one
// left, that says so; else what the store holds does. A change may come behind this one in the file and be built on what
// was before it: it was slow, and says nothing.
func fate(settler Settler, event *namewardv1.AuditEvent, later []*namewardv1.AuditEvent) (*namewardv1.AuditEvent, error) {
	const found = "found at the start after a crash"
	for _, next := range later {
		deleted := next.GetBeforeRevision() == 0 && event.GetAction() == namewardv1.AuditEvent_DELETE
		if next.GetResource() != event.GetResource() || next.GetBeforeRevision() <= event.GetBeforeRevision() && !deleted {
			continue
		}
		made := deleted || etagBefore(next) == store.EtagOf(next.GetBeforeRevision(), event.GetContentDigest())
		if !made {
			return nil, nil
		}
		return committed(event, next.GetBeforeRevision(), found), nil
	}
	fate, revision, err := settler.FateOf(event.GetResource(), event.GetBeforeRevision(), event.GetContentDigest())
	if err != nil {
		return nil, fmt.Errorf("settle %s: %w", event.GetName(), err)
	}
	switch fate {
	case store.FateCommitted:
		return committed(event, revision, found), nil
	case store.FateNotCommitted:
		return unmade(event, "the server died before it was made"), nil
	}
	return nil, nil
}

// etagBefore returns the etag of what a change was built on.
func etagBefore(event *namewardv1.AuditEvent) string {
	if set := event.GetBefore().GetDomainSet(); set != nil {
		return set.GetEtag()
	}
	return event.GetBefore().GetPolicy().GetEtag()
}

func committed(event *namewardv1.AuditEvent, revision uint64, reason string) *namewardv1.AuditEvent {
	end := ending(event.GetName(), revision, nil, time.Now())
	end.Reason = reason
	return end
}

func unmade(event *namewardv1.AuditEvent, reason string) *namewardv1.AuditEvent {
	end := ending(event.GetName(), 0, nil, time.Now())
	end.Outcome, end.Reason = namewardv1.AuditEvent_NOT_COMMITTED, reason
	return end
}
