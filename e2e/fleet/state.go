package fleet

// Batch is a batch of observations that an agent has sent: on which of its streams, and its number there.
type Batch struct {
	Stream int
	Number uint64
}

// In reports whether the server has taken a batch in, as far as the agent knows, and Lost whether the agent cannot know
// any more, since the stream has ended.
func (s State) In(b Batch) bool { return s.Streams == b.Stream && s.Batch >= b.Number }

// Lost is said at In.
func (s State) Lost(b Batch) bool { return s.Streams != b.Stream }

// State is how an agent is, and what became of it.
type State struct {
	Node int
	// Connected says that the server has answered on the stream that is open.
	Connected bool
	// Revision is the last that the agent was told of, whole, and RuleSetID its content.
	Revision  uint64
	RuleSetID string
	// Acked is the highest revision that the agent has acknowledged on this stream.
	Acked uint64
	// Streams counts those that the server has answered; Resumed and Reset how it began them.
	Streams, Resumed, Reset int
	// Failures counts streams that ended and were not asked to, Drained those that the server asked to leave.
	Failures, Drained int
	// AtOnce counts moves to another server without a pause.
	AtOnce int
	// Hints counts how often a server said when to come again.
	Hints int
	// Server is that of the last stream that was answered, and Tries how often the agent had tried until then: 1 where
	// no attempt failed.
	Server string
	Tries  int
	// Messages and Bytes are those received, on all streams.
	Messages, Bytes int
	// Batch is the last batch of observations that the server has taken in on this stream.
	Batch uint64
	// Faults counts responses that break the protocol.
	Faults int
	// Err is why the last stream ended.
	Err error
}
