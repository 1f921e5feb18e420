package store

import (
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"github.com/nameward/nameward/controlplane/policy"
)

// The window of changes from which a watch can resume. Whoever is older gets a snapshot.
const (
	historyEvents = 4096
	historyBytes  = 64 << 20
)

// event is one change, an element of a list that readers follow at their own pace. It is immutable but for
// what comes after it.
type event struct {
	revision uint64
	put      *policy.Policy
	deleted  string
	size     int
	// linked is closed when next is set.
	linked chan struct{}
	// next becomes nil again when the event leaves the window: a reader that stopped here would otherwise
	// hold every later event in memory.
	next atomic.Pointer[event]
}

// history is the window: the events from oldest to latest. Its methods are called under Store.mu.
type history struct {
	// oldest is a mark without a change: what follows it can be resumed from its revision on.
	oldest, latest      *event
	events, bytes       int
	maxEvents, maxBytes int
}

func newHistory(revision uint64, maxEvents, maxBytes int) *history {
	mark := &event{revision: revision, linked: make(chan struct{})}
	return &history{oldest: mark, latest: mark, maxEvents: maxEvents, maxBytes: maxBytes}
}

// add links a change. Each is linked once, under Store.mu, so that the list has one order.
func (h *history) add(revision uint64, put *policy.Policy, deleted string) {
	e := &event{revision: revision, put: put, deleted: deleted, linked: make(chan struct{})}
	if put != nil {
		e.size = proto.Size(put.Message)
	}
	last := h.latest
	last.next.Store(e)
	close(last.linked)
	h.latest = e
	h.events++
	h.bytes += e.size
	// The last event stays, whatever its size: it is where the readers wait.
	for h.oldest != h.latest && (h.events > h.maxEvents || h.bytes > h.maxBytes) && h.events > 1 {
		h.trim()
	}
}

// trim moves the mark on by one event and cuts off the one that was the mark.
func (h *history) trim() {
	gone := h.oldest
	h.oldest = gone.next.Load()
	h.events--
	h.bytes -= h.oldest.size
	gone.next.Store(nil)
}

// since returns the event behind which the changes after a revision begin; false when the window does not
// reach back that far, or the revision is none of this store's.
func (h *history) since(revision uint64) (*event, bool) {
	if revision < h.oldest.revision || revision > h.latest.revision {
		return nil, false
	}
	e := h.oldest
	for next := e.next.Load(); next != nil && next.revision <= revision; next = e.next.Load() {
		e = next
	}
	return e, true
}
