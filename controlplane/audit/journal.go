// Package audit keeps the audit log of a policy server: JSON lines, appended only, in files that are rotated by size and
// kept by count. A change is in the log, on disk, before it is committed, and so before it is acknowledged; a second
// line says what came of it. What has no second line is settled at the next start by what the store holds.
package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/controlplane/access"
	"github.com/nameward/nameward/controlplane/store"
)

// ErrFull says that the log has no room on its disk.
var ErrFull = errors.New("audit log has no room")

// ErrBroken says that the log cannot be written for another reason.
var ErrBroken = errors.New("audit log cannot be written")

// Config says how much is kept.
type Config struct {
	// Dir is the directory of the log, made when it is not there.
	Dir string
	// MaxBytes is the size from which on a file is left for another.
	MaxBytes int64
	// MaxFiles is how many files are kept.
	MaxFiles int
}

// DirOf returns the directory of the log in a data directory.
func DirOf(dataDir string) string { return filepath.Join(dataDir, "audit") }

// Log is the audit log: a store.Journal, and an access.Auditor. It starts no goroutine and is safe for concurrent use.
type Log struct {
	segments *segments
	log      *slog.Logger
	metrics  *metrics
	// began makes ids of this process differ from those of others, count those of events from each other.
	began string
	count atomic.Uint64
	// reading has a token for each reader: a file is read whole.
	reading chan struct{}
}

// readers is how many lists are made at once.
const readers = 2

// Open opens the log. Events whose end is missing are settled by what the store says of them: nothing may change in it
// before.
func Open(cfg Config, settler Settler, log *slog.Logger) (*Log, error) {
	segments, err := openSegments(cfg.Dir, cfg.MaxBytes, cfg.MaxFiles)
	if err != nil {
		return nil, err
	}
	l := &Log{segments: segments, log: log, metrics: newMetrics(), reading: make(chan struct{}, readers), began: strconv.FormatInt(time.Now().UnixNano(), 36)}
	if err := l.settle(settler); err != nil {
		return nil, errors.Join(err, segments.close())
	}
	return l, nil
}

// Close closes the log, after the last change.
func (l *Log) Close() error { return l.segments.close() }

func (l *Log) newName() string {
	return collection + l.began + "-" + strconv.FormatUint(l.count.Add(1), 36)
}

// Begin puts a change on record; see store.Journal.
func (l *Log) Begin(ctx context.Context, change store.Change) (end func(revision uint64, err error), err error) {
	began := time.Now()
	name := l.newName()
	line, err := encode(beginning(ctx, name, change, began))
	if err == nil {
		err = l.segments.begin(line)
	}
	l.metrics.seconds.Observe(time.Since(began).Seconds())
	if err != nil {
		l.metrics.refused.Inc()
		l.log.Error("change refused: the audit log cannot be written", "resource", change.Name, "err", err)
		return nil, said(err)
	}
	l.metrics.events.Inc()
	return func(revision uint64, err error) { l.end(name, ending(name, revision, err, time.Now())) }, nil
}

// end writes the outcome. The change is what it is: that the line cannot be written does not undo it.
func (l *Log) end(name string, event *namewardv1.AuditEvent) {
	line, err := encodeEnd(event)
	if err = errors.Join(err, l.segments.finish(line)); err != nil {
		l.metrics.unfinished.Inc()
		l.log.Error("outcome not in the audit log", "event", name, "outcome", event.GetOutcome().String(), "err", err)
	}
}

// Denied puts denied calls on record; see access.Auditor.
func (l *Log) Denied(caller access.Caller, method, reason string, count int) {
	line, err := encode(denial(l.newName(), caller, method, reason, count, time.Now()))
	if err == nil {
		err = l.segments.note(line)
	}
	if err != nil {
		// The call is denied all the same, and in the server's own log.
		l.metrics.lost.Inc()
		l.log.Error("denied call not in the audit log", "err", err)
		return
	}
	l.metrics.events.Inc()
}

// said returns what the caller of a refused change hears: the kind of fault and the system's word for it, no paths.
func said(err error) error {
	kind := ErrBroken
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		kind = ErrFull
	}
	var number unix.Errno
	if errors.As(err, &number) {
		return fmt.Errorf("%w: %w", kind, number)
	}
	return kind
}
