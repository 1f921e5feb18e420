package observe

import (
	"slices"
	"sort"
)

// Cursor is a place in the order of changes. The zero Cursor is before all of them.
type Cursor uint64

// Changes returns, in order of their last change, the mappings that changed after a cursor, at most
// limit of them (0: all), the cursor to go on from, and a channel that is closed at the next change
// after this call. What a reader skips is not kept for it: a mapping that changed often comes once, as
// it is now, and one that is gone does not come. With fewer than limit results the reader is up to date.
func (t *Table) Changes(after Cursor, limit int) (changed []Mapping, next Cursor, more <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	changed, next = t.changes.since(after, limit, t.epoch)
	if t.changed == nil {
		t.changed = make(chan struct{})
	}
	return changed, next, t.changed
}

// announce tells those who wait, if anybody does: changes are many.
func (t *Table) announce() {
	if t.changed != nil {
		close(t.changed)
		t.changed = nil
	}
}

// changeLog lists entries by their last change. A line whose sequence is no longer its entry's is
// void; void lines are swept out before they outnumber the entries, so the log is bounded by those.
type changeLog struct {
	lines []changeLine
	last  uint64
}

type changeLine struct {
	sequence uint64
	entry    *entry
}

const changeLogSlack = 1024 // void lines that are not worth a sweep

func (l *changeLog) add(e *entry, entries int) {
	l.last++
	e.sequence = l.last
	l.lines = append(l.lines, changeLine{l.last, e})
	if len(l.lines) > 2*entries+changeLogSlack {
		l.lines = slices.DeleteFunc(l.lines, func(line changeLine) bool { return line.void() || line.entry.dropped })
	}
}

// addDropped adds a mapping that is no entry any more. It is swept out with the void ones.
func (l *changeLog) addDropped(gone *entry, at instant) {
	l.last++
	e := &entry{
		domain: gone.domain, chain: gone.chain, former: gone.former, address: gone.address, client: gone.client,
		firstSeen: gone.firstSeen, lastSeen: gone.lastSeen, answeredAt: gone.answeredAt,
		expiresAt: min(gone.expiresAt, at), dropped: true, sequence: l.last,
	}
	l.lines = append(l.lines, changeLine{l.last, e})
}

func (c changeLine) void() bool { return c.entry.sequence != c.sequence }

func (l *changeLog) since(after Cursor, limit int, epoch epoch) ([]Mapping, Cursor) {
	var changed []Mapping
	first := sort.Search(len(l.lines), func(i int) bool { return l.lines[i].sequence > uint64(after) })
	for _, line := range l.lines[first:] {
		if limit > 0 && len(changed) == limit {
			return changed, after
		}
		after = Cursor(line.sequence)
		if !line.void() {
			changed = append(changed, epoch.mapping(line.entry))
		}
	}
	return changed, after
}
