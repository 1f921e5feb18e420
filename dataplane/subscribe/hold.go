package subscribe

import (
	"sync"
	"time"
)

// holdMost is how long a server keeps a node away with one hint at most: none is to send a fleet away for ever.
const holdMost = time.Minute

// holds are until when servers asked to be left alone. Each is of that server alone: the node goes to others meanwhile.
type holds struct {
	mu    sync.Mutex           // guards all below
	until map[string]time.Time // by server
	heard uint64
}

func newHolds() *holds { return &holds{until: map[string]time.Time{}} }

// holdTime is how long a node leaves a server alone that asked for some time: for as long, within holdMost, and a random
// time longer, so that those that were asked at once do not come back at once.
func holdTime(asked time.Duration, random func(int64) int64) time.Duration {
	asked = min(asked, holdMost)
	if asked <= 0 {
		return 0
	}
	return asked + time.Duration(random(int64(min(asked, backoffLast))))
}

// hold takes note of a hint.
func (h *holds) hold(server string, until time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.heard++
	h.until[server] = until
}

// release is told that a server serves the node.
func (h *holds) release(server string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.until, server)
}

// left returns how long a server is to be left alone still; 0 for no longer.
func (h *holds) left(server string, now time.Time) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	until, held := h.until[server]
	if !held {
		return 0
	}
	return max(0, until.Sub(now))
}

// hints returns how many there were.
func (h *holds) hints() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.heard
}
