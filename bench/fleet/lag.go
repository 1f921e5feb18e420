package fleet

import (
	"math"
	"sync"
	"time"

	"github.com/nameward/nameward/e2e/fleet"
)

// lag counts how old the oldest change was that messages brought.
type lag struct {
	mu    sync.Mutex  // guards all below
	first uint64      // revision of the first change; 0 before it
	times []time.Time // of the changes
	has   []uint64    // by node: the revision that it has
	late  [60_000]int
}

// begin says which revision all have.
func (l *lag) begin(revision uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.first = revision + 1
}

// changed notes when the next revision was there to be had.
func (l *lag) changed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.times = append(l.times, time.Now())
}

func (l *lag) newest() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first + uint64(len(l.times)) - 1
}

func (l *lag) arrived(a fleet.Arrival) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.has) <= a.Node {
		l.has = append(l.has, 0)
	}
	before := l.has[a.Node]
	l.has[a.Node] = a.Revision
	// A change may arrive before its writer has the answer.
	oldest := max(before+1, l.first)
	if l.first == 0 || a.Revision < oldest || oldest >= l.first+uint64(len(l.times)) {
		return
	}
	late := a.At.Sub(l.times[oldest-l.first]).Milliseconds()
	l.late[min(max(late, 0), int64(len(l.late)-1))]++
}

// quantile returns, in milliseconds, within what a part of all messages came.
func (l *lag) quantile(part float64) float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	sum := 0
	for _, n := range l.late {
		sum += n
	}
	rest := int(math.Ceil(part * float64(sum)))
	for late, n := range l.late {
		if rest -= n; rest <= 0 {
			return float64(late)
		}
	}
	return math.NaN()
}
