package syncserver

import (
	"fmt"
	"slices"
	"time"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
)

// apartAtLeast is the difference of two clocks from which it counts. A batch may be under way for less than
// that: a connection on which nothing moves for longer is given up.
const apartAtLeast = time.Minute

// readClock returns how much has to be added to the times of a node for them to be by this clock.
func (s *session) readClock(observations *agentv1.Observations, now time.Time) time.Duration {
	if observations.GetSentTime() == nil {
		return s.apart
	}
	apart := now.Sub(observations.GetSentTime().AsTime())
	if apart.Abs() < apartAtLeast {
		apart = 0
	}
	if (apart != 0) != (s.apart != 0) {
		s.log.Warn("clock of the node against this one", "behind", apart.Round(time.Second).String())
	}
	s.apart = apart
	return apart
}

// withClock adds to the faults of a node that its clock is wrong, or this one.
func (s *session) withClock(faults []string) []string {
	if s.apart == 0 {
		return faults
	}
	side := "behind"
	if s.apart < 0 {
		side = "ahead of"
	}
	return append(slices.Clip(faults), fmt.Sprintf(
		"the node's clock is %v %s that of the policy server. Remedy: set both by NTP; mappings are shown with the server's times, flow events with the node's",
		s.apart.Abs().Round(time.Minute), side))
}
