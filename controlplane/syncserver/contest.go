package syncserver

import (
	"fmt"
	"time"

	"github.com/nameward/nameward/controlplane/store"
)

const (
	// takeoversLimit is how often in takeoversTime an agent may take over from a stream of its own that the server
	// believes to live. More often, two copies of one agent drive each other out: the one that is there stays.
	takeoversLimit = 5
	takeoversTime  = time.Minute
	// contestTime is how long a refused claim is told of.
	contestTime = 10 * time.Minute
)

// contest is what is known of other agents that claim a node.
type contest struct {
	refused int
	last    time.Time
	who     string
}

// fault returns what the node's status says of it, empty for nothing.
func (c contest) fault(now time.Time) string {
	if c.refused == 0 || now.Sub(c.last) > contestTime {
		return ""
	}
	return fmt.Sprintf(
		"another agent, %s, claims this node and was refused %d times, the last time at %s. Remedy: give each node an id of its own, or stop the agent that is not wanted",
		c.who, c.refused, c.last.UTC().Format(time.RFC3339))
}

// contested takes note that another agent was refused.
func (s *session) contested(who string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.contest = contest{s.contest.refused + 1, now, who}
	degraded := s.faults(now)
	s.server.statuses.change(s.status, func(status *store.NodeStatus) {
		if s.speaksIn(status) {
			status.Degraded = degraded
		}
	})
}

// faults returns what is wrong with the node: what it says itself, and what only the server can know.
func (s *session) faults(now time.Time) []string {
	faults := s.withClock(s.reported)
	if fault := s.contest.fault(now); fault != "" {
		faults = append(faults[:len(faults):len(faults)], fault)
	}
	return faults
}
