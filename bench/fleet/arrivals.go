package fleet

import (
	"context"
	"sync"
	"time"

	"github.com/nameward/nameward/e2e/fleet"
)

// arrivals gathers when which agent had which revision.
type arrivals struct {
	mu   sync.Mutex // guards list
	list []fleet.Arrival
}

func (a *arrivals) add(arrival fleet.Arrival) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.list = append(a.list, arrival)
}

// take returns what has arrived since it was last called.
func (a *arrivals) take() []fleet.Arrival {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := a.list
	a.list = nil
	return list
}

// agents is a fleet that runs, and what arrives at it.
type agents struct {
	*fleet.Fleet
	arrivals *arrivals
	stop     func() error
}

// kept is the node that keeps its rules, so that they can be held against what was announced.
const kept = 0

func join(ctx context.Context, s *server, nodes int) *agents {
	all := &arrivals{}
	a := joinWith(ctx, s, nodes, all.add)
	a.arrivals = all
	return a
}

// joinBare is for a server that says nothing that rules could be held against.
func joinBare(ctx context.Context, s *server, nodes int) *agents {
	all := &arrivals{}
	a := start(ctx, s, fleet.Config{Nodes: nodes, Arrived: all.add})
	a.arrivals = all
	return a
}

// joinWith has a function take what arrives.
func joinWith(ctx context.Context, s *server, nodes int, arrived func(fleet.Arrival)) *agents {
	return start(ctx, s, fleet.Config{Nodes: nodes, Arrived: arrived, Keep: func(node int) bool { return node == kept }})
}

func start(ctx context.Context, s *server, config fleet.Config) *agents {
	config.Server, config.Credentials = s.address, s.keys.ofNode
	config.Labels = func(int) map[string]string { return map[string]string{"role": "web"} }
	a := &agents{Fleet: fleet.New(config)}
	a.stop = a.Start(ctx)
	return a
}

// awaitRevision returns when every agent is connected and has a revision, or a newer one.
func (a *agents) awaitRevision(ctx context.Context, revision uint64) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return a.Await(ctx, func(s fleet.State) bool { return s.Connected && s.Revision >= revision })
}

// delays tells, for each agent and each revision that it was waited for, how long after the change the agent had it
// or a newer one. Revisions have no gaps: the first is the number of the first change.
func delays(list []fleet.Arrival, first uint64, changed []time.Time) []time.Duration {
	next := map[int]int{} // by node: the change that it has not had
	var all []time.Duration
	for _, arrival := range list {
		at := next[arrival.Node]
		for ; at < len(changed) && first+uint64(at) <= arrival.Revision; at++ {
			all = append(all, max(0, arrival.At.Sub(changed[at])))
		}
		next[arrival.Node] = at
	}
	return all
}
