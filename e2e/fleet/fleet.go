// Package fleet plays the agents of thousands of nodes in one process, for tests and for the bench. Each has a
// connection of its own and speaks the protocol of sync_service.proto in full: it resumes, acknowledges at most ten
// times a second, refuses at once, reports how it does and what it saw, waits a random time that grows before it
// comes back, and goes at once where a server that stops sends it. What it leaves out is what costs: it looks into the
// rules that it is sent, and remembers what it saw, only where it is told to.
package fleet

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// Config says what fleet there is. All functions are called on many goroutines at once.
type Config struct {
	Server string // HOST:PORT
	// Servers, if given, are tried in turn in place of Server, each agent with another one first.
	Servers []string
	Nodes   int
	// Name returns the id of a node; nil for node-0, node-1 and so on.
	Name func(node int) string
	// Labels returns the labels of a node; nil for none.
	Labels func(node int) map[string]string
	// Plain says which nodes do not read packed changes, like agents of earlier releases; no function: all do.
	Plain func(node int) bool
	// Keep says which nodes keep the rules that they are sent, for Agent.Rules; nil for none.
	Keep func(node int) bool
	// Remember says which nodes remember the mappings that they report until these end, and tell all that live on each
	// new stream, as agents do; nil for none: it costs memory.
	Remember func(node int) bool
	// Refuse returns why a node cannot apply a revision; nil when it can. No function: all can.
	Refuse func(node int, revision uint64) error
	// Slow returns how long a node takes before it reads on; no function: no node does.
	Slow func(node int) time.Duration
	// Arrived takes each revision that a node is told of, whole.
	Arrived func(Arrival)
	// StatusInterval is how often each node says how it does; 0 for every 10 seconds, as agents do.
	StatusInterval time.Duration
	// BackoffLast is the longest time before a node tries again; 0 for 10 seconds, as agents do.
	BackoffLast time.Duration
	// Credentials returns what an agent connects with; nil for plain text.
	Credentials func(node int) credentials.TransportCredentials
	// Dial connects to a server; nil for TCP.
	Dial func(ctx context.Context, server string) (net.Conn, error)
	// Silence is after how long without a word from the server a connection is asked whether it lives, and after half as
	// long again given up; 0 for never.
	Silence time.Duration
}

// Arrival says when a node had a revision, whole.
type Arrival struct {
	Node     int
	Revision uint64
	At       time.Time
}

// Fleet is the agents of all nodes.
type Fleet struct {
	cfg    Config
	agents []*Agent
	moved  chan struct{} // has an element when some agent's state has changed
}

// New makes a fleet, which does nothing until Run.
func New(cfg Config) *Fleet {
	if cfg.StatusInterval == 0 {
		cfg.StatusInterval = statusInterval
	}
	if cfg.BackoffLast == 0 {
		cfg.BackoffLast = backoffLast
	}
	if cfg.Credentials == nil {
		cfg.Credentials = func(int) credentials.TransportCredentials { return insecure.NewCredentials() }
	}
	if cfg.Dial == nil {
		cfg.Dial = func(ctx context.Context, server string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", server) //nolint:wrapcheck // the caller says what it was for
		}
	}
	f := &Fleet{cfg: cfg, moved: make(chan struct{}, 1)}
	for i := range cfg.Nodes {
		f.agents = append(f.agents, newAgent(f, i))
	}
	return f
}

// Run keeps every agent connected until ctx ends.
func (f *Fleet) Run(ctx context.Context) error {
	var g errgroup.Group
	for _, a := range f.agents {
		g.Go(func() error { return a.run(ctx) })
	}
	return g.Wait() //nolint:wrapcheck // each names its node
}

// Start runs the fleet beside the caller; the function returned ends it and says what it failed for.
func (f *Fleet) Start(ctx context.Context) (stop func() error) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	return sync.OnceValue(func() error {
		cancel()
		return <-done
	})
}

// Agent returns the agent of a node.
func (f *Fleet) Agent(node int) *Agent { return f.agents[node] }

// Disconnect breaks the connections of some nodes at once; they come back as agents do.
func (f *Fleet) Disconnect(which func(node int) bool) {
	for i, a := range f.agents {
		if which(i) {
			a.disconnect()
		}
	}
}

// scanInterval bounds how often Await looks at all agents.
const scanInterval = 2 * time.Millisecond

// Await returns when every agent is as asked, or says how many are not when ctx ends.
func (f *Fleet) Await(ctx context.Context, is func(State) bool) error {
	lacks := func(a *Agent) bool { return !is(a.State()) }
	for last := 0; ; {
		// Where the last look ended: of thousands of agents most are as asked, or most are not.
		if last >= len(f.agents) || !lacks(f.agents[last]) {
			if last = slices.IndexFunc(f.agents, lacks); last < 0 {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			lacking := slices.DeleteFunc(slices.Clone(f.agents), func(a *Agent) bool { return !lacks(a) })
			return fmt.Errorf("%d of %d agents are not as awaited: %w", len(lacking), len(f.agents), ctx.Err())
		case <-f.moved:
		}
		pause(ctx, scanInterval)
	}
}

// States returns how every agent is.
func (f *Fleet) States() []State {
	states := make([]State, 0, len(f.agents))
	for a := range slices.Values(f.agents) {
		states = append(states, a.State())
	}
	return states
}

func (f *Fleet) move() {
	select {
	case f.moved <- struct{}{}:
	default:
	}
}
