package fleet

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	"github.com/nameward/nameward/api/transport"
)

// As agents do: see dataplane/subscribe.
const (
	ackDelay       = 100 * time.Millisecond
	ackSpread      = 25 * time.Millisecond
	statusInterval = 10 * time.Second
	backoffFirst   = 100 * time.Millisecond
	backoffLast    = 10 * time.Second
	windowSize     = 1 << 20
	dialTimeout    = 20 * time.Second
)

var (
	errDrained      = errors.New("the server asked to leave")
	errDisconnected = errors.New("the connection was broken")
	errProtocol     = errors.New("the server breaks the protocol")
)

// Agent is one node's.
type Agent struct {
	fleet    *Fleet
	node     int
	name     string
	instance string
	keep     bool

	// reporting is held from the choice of a batch until it is sent, so that the server takes in what the agent says of
	// one mapping in the order in which it was. It is taken before mu.
	reporting sync.Mutex

	mu    sync.Mutex // guards all below
	state State
	tries int // since a server answered
	store string
	held  held
	link  *link
	// fresh says that a whole rule set is under way: what completes it is from nothing.
	fresh bool
	// holds are until when servers asked to be left alone.
	holds map[string]time.Time
	leave context.CancelCauseFunc
	due   bool // a timer will acknowledge
	batch uint64
	// live are the mappings that the agent remembers, in the order in which it saw them; nil where it remembers none.
	live *remembered
}

func newAgent(f *Fleet, node int) *Agent {
	a := &Agent{fleet: f, node: node, name: "node-" + strconv.Itoa(node), instance: strconv.FormatUint(rand.Uint64(), 36)}
	if f.cfg.Name != nil {
		a.name = f.cfg.Name(node)
	}
	a.state.Node = node
	a.keep = f.cfg.Keep != nil && f.cfg.Keep(node)
	if f.cfg.Remember != nil && f.cfg.Remember(node) {
		a.live = &remembered{}
	}
	return a
}

// State returns how the agent is.
func (a *Agent) State() State {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.state
}

// run stays connected until ctx ends.
func (a *Agent) run(ctx context.Context) error {
	servers := a.fleet.cfg.Servers
	if len(servers) == 0 {
		servers = []string{a.fleet.cfg.Server}
	}
	next := move{at: a.node % len(servers)}
	for failures := 0; ctx.Err() == nil; failures++ {
		began := time.Now()
		err := a.talk(ctx, servers[next.at])
		if ctx.Err() != nil {
			return nil
		}
		lasted := time.Since(began)
		a.hold(servers[next.at], transport.RetryDelay(err))
		next = a.after(next, servers, lasted, err)
		a.ended(err, next)
		if errors.Is(err, errDrained) || lasted >= a.fleet.cfg.BackoffLast {
			failures = 0
		}
		wait := a.heldFor(servers[next.at])
		if !next.atOnce {
			bound := a.fleet.cfg.BackoffLast
			if failures < 10 {
				bound = min(backoffFirst<<failures, bound)
			}
			wait = max(wait, rand.N(bound))
		}
		pause(ctx, wait)
	}
	return nil
}

// talk runs one stream until it ends.
func (a *Agent) talk(ctx context.Context, server string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	l, err := a.open(ctx, server, a.hello(cancel))
	if err != nil {
		return cause(ctx, err)
	}
	defer l.close()
	defer context.AfterFunc(ctx, l.close)()
	defer l.watch(a.fleet.cfg.Silence)()
	a.mu.Lock()
	a.link = l
	a.mu.Unlock()
	for first := true; ; first = false {
		if a.fleet.cfg.Slow != nil {
			pause(ctx, a.fleet.cfg.Slow(a.node))
		}
		r := response{keep: a.keep}
		if err := l.receive(&r); err != nil {
			return cause(ctx, err)
		}
		if first {
			if err := a.begin(ctx, l, server, &r); err != nil {
				return err
			}
			a.tellStatus(ctx, l, rand.N(a.fleet.cfg.StatusInterval))
		}
		a.hold(server, r.again)
		if err := a.take(&r); err != nil {
			return err
		}
	}
}

// hello makes a stream the agent's.
func (a *Agent) hello(leave context.CancelCauseFunc) *agentv1.Hello {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.leave, a.batch, a.due, a.fresh = leave, 0, false, false
	a.state.Acked, a.state.Batch = 0, 0
	a.tries++
	hello := &agentv1.Hello{
		Node: a.name, InstanceId: a.instance, AgentVersion: "fleet", Kernel: "none", IptablesBackend: "nft",
		StoreId: a.store, Revision: a.state.Revision, RuleSetId: []byte(a.state.RuleSetID),
	}
	if a.fleet.cfg.Plain == nil || !a.fleet.cfg.Plain(a.node) {
		hello.Capabilities = []agentv1.Hello_Capability{agentv1.Hello_PACKED_CHANGES}
	}
	if a.fleet.cfg.Labels != nil {
		hello.Labels = a.fleet.cfg.Labels(a.node)
	}
	return hello
}

// begin takes the answer to hello.
func (a *Agent) begin(ctx context.Context, l *link, server string, r *response) error {
	// Nothing is reported before the snapshot has begun.
	if err := a.tellSnapshot(ctx, l); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.state.Streams++
	a.state.Connected = true
	a.state.Server, a.state.Tries, a.tries = server, a.tries, 0
	delete(a.holds, server)
	switch {
	case r.reset:
		a.state.Reset++
	case r.resumed:
		a.state.Resumed++
	default:
		a.state.Faults++
		return fmt.Errorf("%w: its first response says neither resumed nor reset", errProtocol)
	}
	a.fleet.move()
	return nil
}

// take takes a response in, and answers it.
func (a *Agent) take(r *response) error {
	now := time.Now()
	a.mu.Lock()
	a.state.Messages++
	a.state.Bytes += r.size
	if r.storeID != "" {
		a.store = r.storeID
	}
	a.fresh = a.fresh || r.reset
	a.state.Batch = max(a.state.Batch, r.batch)
	l, leave := a.link, a.leave
	if a.keep {
		a.held.add(r)
	}
	if r.complete {
		a.complete(r)
	}
	revision := a.state.Revision
	a.mu.Unlock()
	if r.drain > 0 {
		asked := &drained{r.drainServers}
		time.AfterFunc(rand.N(r.drain), func() { leave(asked) })
	}
	defer a.fleet.move()
	if !r.complete {
		return nil
	}
	if a.fleet.cfg.Arrived != nil {
		a.fleet.cfg.Arrived(Arrival{a.node, revision, now})
	}
	return a.answer(l, revision)
}

// complete is called under mu.
func (a *Agent) complete(r *response) {
	elsewhere := !a.fresh && (len(r.bases) == 0 || r.bases[0] != a.state.Revision)
	if r.revision == 0 || r.id == "" || elsewhere {
		a.state.Faults++
	}
	a.fresh = false
	a.state.Revision, a.state.RuleSetID = r.revision, r.id
}

// answer refuses a revision at once, or has it acknowledged after a while, with what else comes meanwhile.
func (a *Agent) answer(l *link, revision uint64) error {
	if a.fleet.cfg.Refuse != nil {
		if err := a.fleet.cfg.Refuse(a.node, revision); err != nil {
			return a.send(l, &agentv1.SyncRequest{Message: &agentv1.SyncRequest_Nack{Nack: &agentv1.Nack{
				Revision: revision, Error: err.Error(),
			}}})
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.due {
		a.due = true
		time.AfterFunc(ackDelay+rand.N(ackSpread), func() { a.ack(l) })
	}
	return nil
}

// ack acknowledges what the agent has. What breaks the stream is told by its reader.
func (a *Agent) ack(l *link) {
	a.mu.Lock()
	if a.link != l {
		a.mu.Unlock()
		return
	}
	a.due = false
	a.state.Acked = a.state.Revision
	ack := appendAck(nil, a.state.Revision, a.state.RuleSetID)
	a.mu.Unlock()
	a.fleet.move()
	_ = l.send(ack)
}

// tellStatus says how the node does, after a while and then again and again until ctx ends.
func (a *Agent) tellStatus(ctx context.Context, l *link, after time.Duration) {
	time.AfterFunc(after, func() {
		report := &agentv1.StatusReport{Counters: map[string]uint64{"fleet": 1}}
		if ctx.Err() == nil && a.send(l, &agentv1.SyncRequest{Message: &agentv1.SyncRequest_Status{Status: report}}) == nil {
			a.tellStatus(ctx, l, a.fleet.cfg.StatusInterval)
		}
	})
}

func (a *Agent) send(l *link, request *agentv1.SyncRequest) error {
	message, err := proto.Marshal(request)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	return l.send(message)
}

func (a *Agent) disconnect() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.leave != nil {
		a.leave(errDisconnected)
	}
}

// ended notes that a stream has.
func (a *Agent) ended(err error, next move) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.state.Connected, a.state.Err = false, err
	a.link = nil
	a.held.forgetHalf()
	switch {
	case errors.Is(err, errDrained):
		a.state.Drained++
		if next.atOnce {
			a.state.AtOnce++
		}
	case !errors.Is(err, errDisconnected):
		a.state.Failures++
	}
	a.fleet.move()
}

// cause prefers why the agent left to what gRPC makes of it.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil && !errors.Is(c, context.Canceled) {
		return c
	}
	return err
}

func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
