package fleet

import (
	"math/rand/v2"
	"time"
)

// holdMost bounds how long one hint keeps an agent away, as in dataplane/subscribe.
const holdMost = time.Minute

// hold leaves a server alone that said when to come again, and a random time longer.
func (a *Agent) hold(server string, asked time.Duration) {
	if asked <= 0 {
		return
	}
	asked = min(asked, holdMost)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.holds == nil {
		a.holds = map[string]time.Time{}
	}
	a.state.Hints++
	a.holds[server] = time.Now().Add(asked + rand.N(min(asked, a.fleet.cfg.BackoffLast)))
}

// heldFor returns how long a server is to be left alone still.
func (a *Agent) heldFor(server string) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	until, held := a.holds[server]
	if !held {
		return 0
	}
	return max(0, time.Until(until))
}

// following returns the first server behind one that is not to be left alone, or the one that is for the shortest time.
func (a *Agent) following(servers []string, at int) (best int) {
	shortest := time.Duration(-1)
	for i := range servers {
		next := (at + 1 + i) % len(servers)
		if held := a.heldFor(servers[next]); shortest < 0 || held < shortest {
			best, shortest = next, held
		}
	}
	return best
}
