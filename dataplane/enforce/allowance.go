package enforce

import "time"

// A neighbour that writes rules without end costs no more than one look in hooksInterval besides those that are due.
const (
	askedAtOnce = 10                     // looks at the hooks that may be asked for in a row, before each waits for its turn
	askedApart  = 100 * time.Millisecond // many changes that come together are looked at once
)

// allowance is how many more looks may be asked for. The zero allowance is full.
type allowance struct {
	taken int
	since time.Time // that one was given back
}

// take reports whether one more is allowed, and takes it.
func (a *allowance) take(now time.Time) bool {
	back := int(now.Sub(a.since) / hooksInterval)
	if back >= a.taken {
		a.taken, a.since = 0, now
	} else {
		a.taken, a.since = a.taken-back, a.since.Add(time.Duration(back)*hooksInterval)
	}
	if a.taken >= askedAtOnce {
		return false
	}
	a.taken++
	return true
}
