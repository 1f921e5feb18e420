package store

import "time"

// Claim is an agent's on a node. Where there is one server, only its own counts.
type Claim struct {
	// Server is the id of the server that the agent is connected to, Address where that is.
	Server, Address string
	// Instance is that of the agent, another one at each start; Agent says who it is, for people.
	Instance, Agent string
	// Number orders the claims on a node: a later one has a higher number.
	Number int64
	// Takeovers are when the agent took over from itself while it seemed to be connected still.
	Takeovers []time.Time
}

// YieldsTo reports whether what another server says of a node takes the place of this. An agent that moves is where it
// came last. Of two agents the one that is connected counts, and of two that are, the one that was first, as if both had
// come to one server. All servers judge alike, in whatever order they hear of it.
func (s *NodeStatus) YieldsTo(other *NodeStatus) bool {
	mine, theirs := &s.Claim, &other.Claim
	switch {
	case mine.Server == theirs.Server || mine.Instance == theirs.Instance:
		return theirs.Number >= mine.Number
	case s.Connected != other.Connected:
		return other.Connected
	case s.Connected:
		return theirs.Number < mine.Number
	}
	return theirs.Number > mine.Number
}
