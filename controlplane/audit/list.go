package audit

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

// Position is a place in the log: before the event so many events from the beginning of a file. The zero Position is
// the end of the log.
type Position struct {
	File  uint64
	Event int
}

// Filter selects events. The zero Filter selects all.
type Filter struct {
	// Resource is a resource name or a collection.
	Resource, Identity string
	Outcome            namewardv1.AuditEvent_Outcome
	Since, Until       time.Time
}

// Page is a part of a list.
type Page struct {
	Events []*namewardv1.AuditEvent
	// Next is where the next page begins; More says whether there is one.
	Next Position
	More bool
	// Damaged counts lines of the files looked at that could not be read.
	Damaged int
}

// lookLimit bounds how many events a page looks at, and so how long it takes.
const lookLimit = 20_000

// List returns up to limit events of before a position, the latest first, of no more than so many bytes, one at least.
func (l *Log) List(ctx context.Context, filter Filter, before Position, limit, bytes int) (Page, error) {
	select {
	case <-ctx.Done():
		return Page{}, context.Cause(ctx)
	case l.reading <- struct{}{}:
	}
	defer func() { <-l.reading }()
	numbers, err := l.segments.numbers()
	if err != nil {
		return Page{}, err
	}
	w := walk{filter: filter, limit: limit, bytes: bytes}
	for _, number := range slices.Backward(numbers) {
		if before.File != 0 && number > before.File {
			continue
		}
		file, err := readFile(l.segments.path(number))
		if errors.Is(err, os.ErrNotExist) {
			continue // rotated away meanwhile
		}
		if err != nil {
			return Page{}, err
		}
		if number == before.File {
			file.events = file.events[:min(len(file.events), before.Event)]
		}
		if w.through(number, file); w.page.More {
			break
		}
	}
	return w.page, nil
}

// walk goes through files, from the last event to the first, until a page is full.
type walk struct {
	filter       Filter
	limit, bytes int

	page         Page
	looked, size int
}

// through takes in one file.
func (w *walk) through(number uint64, file *fileEvents) {
	w.page.Damaged += file.damaged
	for i, lines := range slices.Backward(file.events) {
		if len(w.page.Events) == w.limit || w.looked == lookLimit || w.size > w.bytes {
			w.page.Next, w.page.More = Position{File: number, Event: i + 1}, true
			return
		}
		w.looked++
		event, err := lines.read()
		switch {
		case err != nil:
			w.page.Damaged++
		case w.filter.selects(event):
			w.page.Events = append(w.page.Events, event)
			w.size += proto.Size(event)
		}
	}
}

func (f Filter) selects(event *namewardv1.AuditEvent) bool {
	at := event.GetCreateTime().AsTime()
	switch {
	case f.Resource != "" && event.GetResource() != f.Resource && !strings.HasPrefix(event.GetResource(), strings.TrimSuffix(f.Resource, "/")+"/"):
		return false
	case f.Identity != "" && event.GetCaller().GetIdentity() != f.Identity:
		return false
	case f.Outcome != namewardv1.AuditEvent_OUTCOME_UNSPECIFIED && event.GetOutcome() != f.Outcome:
		return false
	}
	return (f.Since.IsZero() || !at.Before(f.Since)) && (f.Until.IsZero() || at.Before(f.Until))
}
