package audit

import (
	"bytes"
	"fmt"
	"io"
	"os"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

// fileEvents are the events of one file, in the order in which they began. Only where they are is known at first.
type fileEvents struct {
	text   []byte
	events []eventLines
	// damaged counts lines that are none of ours.
	damaged int
}

// eventLines are the lines of one event; last is nil where its outcome is missing or in the first.
type eventLines struct {
	first, last []byte
}

// read returns the event; errDamaged where a line of it cannot be read.
func (e eventLines) read() (*namewardv1.AuditEvent, error) {
	event := &namewardv1.AuditEvent{}
	if err := decode(e.first, event); err != nil {
		return nil, err
	}
	if e.last == nil {
		return event, nil
	}
	end := &namewardv1.AuditEvent{}
	if err := decode(e.last, end); err != nil {
		return nil, err
	}
	event.Outcome, event.EndTime, event.Revision, event.Reason = end.GetOutcome(), end.GetEndTime(), end.GetRevision(), end.GetReason()
	return event, nil
}

// ended reports whether a last line says how it ended; without looking closer, since nearly all do.
func (e eventLines) ended() bool { return bytes.Contains(e.last, []byte(`,"outcome":"`)) }

// readFile reads a file as far as its last whole line.
func readFile(path string) (*fileEvents, error) {
	file, err := os.Open(path) //nolint:gosec // ours
	if err != nil {
		return nil, fmt.Errorf("read audit log: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(file)
	if err != nil {
		return nil, fmt.Errorf("read audit log: %w", err)
	}
	f := &fileEvents{text: text}
	f.index()
	return f, nil
}

// index finds the lines of each event.
func (f *fileEvents) index() {
	begun := map[string]int{}
	for rest := f.text; ; {
		line, after, whole := bytes.Cut(rest, []byte{'\n'})
		if !whole {
			return
		}
		rest = after
		name, ends, ok := nameOf(line)
		i, known := begun[string(name)]
		switch {
		case !ok:
			f.damaged++
		case !ends:
			begun[string(name)] = len(f.events)
			f.events = append(f.events, eventLines{first: line})
		case known:
			f.events[i].last = line
		default:
			// The end of an event that began in a file which was given up.
			f.damaged++
		}
	}
}

// nameOf returns the name of the event that a line is of, and whether it is a second line: those begin with
// another field behind the name. Whether the rest of it is whole is seen when it is read.
func nameOf(line []byte) (name []byte, ends, ok bool) {
	rest, ok := bytes.CutPrefix(line, []byte(`{"name":"`+collection))
	if !ok || !bytes.HasSuffix(line, []byte{'}'}) {
		return nil, false, false
	}
	name, rest, ok = bytes.Cut(rest, []byte{'"'})
	return name, ok && !bytes.HasPrefix(rest, []byte(`,"createTime":`)), ok
}
