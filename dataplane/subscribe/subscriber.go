// Package subscribe keeps the stream to a policy server: it says who the node is and what it holds,
// takes in what the server sends, hands each complete rule set to the reconciler, and tells the server
// what became of it. When the stream breaks it connects anew, to the next server of the node's order, after a
// random time that grows; when a server asks to leave, to one that it names, at once; to one that said when to come again,
// no sooner. The last good rule set lies on disk, so that a node that starts without a server enforces
// what it last did.
package subscribe

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"time"
	"unicode"

	"google.golang.org/grpc"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	"github.com/nameward/nameward/api/transport"
	"github.com/nameward/nameward/dataplane/enforce"
)

const (
	backoffFirst = 100 * time.Millisecond
	backoffLast  = 10 * time.Second
	// A stream that ends sooner does not reset the backoff: else a server that accepts and at once ends
	// streams would be asked again without pause.
	settledAfter = backoffLast
)

// Reconciler takes the newest revision and says what is in force.
type Reconciler interface {
	Want(revision *enforce.Revision)
	State() (enforce.State, <-chan struct{})
}

// Reporter tells the server what the node saw and how it does. Report is called once a stream, runs
// as long as that lives, and ends with ctx. acknowledged holds the newest batch number that the server
// has taken in; numbers in between may be missing.
type Reporter interface {
	Report(ctx context.Context, send func(*agentv1.SyncRequest) error, acknowledged <-chan uint64) error
}

// Config says who the node is and where the servers are.
type Config struct {
	Servers []string       // HOST:PORT, in any order: see order
	Hello   *agentv1.Hello // what the agent holds is filled in for each stream
	// Permit lets the node reach the addresses of its servers, whatever the policies say.
	Permit      func(servers []netip.AddrPort) error
	DialOptions []grpc.DialOption // credentials
	ReturnAfter time.Duration     // when a node that is elsewhere looks after its own server; 0: the default
}

// Connection is how the subscriber stands with the servers. It is immutable.
type Connection struct {
	Server  string    // connected to; empty when to none
	Changed time.Time // since when
	Err     error     // why the last attempt or stream ended; nil while connected
	Refused error     // why what the server wants is not taken; nil when it is
}

// Subscriber keeps the node subscribed to a server.
type Subscriber struct {
	cfg        Config
	servers    []string // in this node's order
	reconciler Reconciler
	reporter   Reporter
	log        *slog.Logger
	resolver   *resolver
	holds      *holds

	mu         sync.Mutex // guards all below
	connection Connection
	changed    chan struct{}
	ended      Ended
}

// New makes a subscriber.
func New(cfg Config, reconciler Reconciler, reporter Reporter, log *slog.Logger) *Subscriber {
	return &Subscriber{
		cfg: cfg, servers: order(cfg.Hello.GetNode(), cfg.Servers), reconciler: reconciler, reporter: reporter, log: log,
		resolver:   newResolver(cfg.Servers),
		holds:      newHolds(),
		connection: Connection{Changed: time.Now()},
		changed:    make(chan struct{}),
	}
}

// Connection returns how the subscriber stands with the servers, and a channel that closes when that changes.
func (s *Subscriber) Connection() (Connection, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.connection, s.changed
}

// Run stays connected until ctx ends. No fault of a server ends it.
func (s *Subscriber) Run(ctx context.Context) error {
	var failures int
	for next := (move{server: s.servers[0]}); ctx.Err() == nil; failures++ {
		started := time.Now()
		err := s.stream(ctx, next.server)
		if ctx.Err() != nil {
			break
		}
		lasted := time.Since(started)
		opened := s.disconnected(next.server, err)
		s.hold(next.server, transport.RetryDelay(err))
		next = s.after(next, lasted, err, time.Now())
		s.count(err, next, opened)
		if lasted >= settledAfter || errors.Is(err, errDrained) || errors.Is(err, errReturn) {
			failures = 0
		}
		wait := s.holds.left(next.server, time.Now())
		if !next.atOnce {
			wait = max(wait, backoff(failures, rand.Int64N))
		}
		if wait > 0 && !pause(ctx, wait) {
			break
		}
	}
	return nil
}

// hold leaves a server alone that asked for some time.
func (s *Subscriber) hold(server string, asked time.Duration) {
	wait := holdTime(asked, rand.Int64N)
	if wait == 0 {
		return
	}
	s.log.Debug("policy server said when to come again", "server", server, "asked", asked, "wait", wait)
	s.holds.hold(server, time.Now().Add(wait))
}

// backoff is a random time up to a bound that doubles with each failure (full jitter), so that a fleet
// that lost its server at once does not come back at once.
func backoff(failures int, random func(int64) int64) time.Duration {
	bound := backoffLast
	if failures < 10 {
		bound = min(backoffFirst<<failures, backoffLast)
	}
	return time.Duration(random(int64(bound)))
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

func (s *Subscriber) connected(server string) {
	s.log.Info("connected to policy server", "server", server)
	before, _ := s.Connection()
	s.change(Connection{Server: server, Changed: time.Now(), Refused: before.Refused})
}

// refused notes whether what the server wants is taken.
func (s *Subscriber) refused(err error) {
	now, _ := s.Connection()
	if (now.Refused == nil) == (err == nil) {
		return
	}
	if err != nil {
		s.log.Error("rule set of the policy server not taken", "err", err)
	}
	now.Refused = err
	s.change(now)
}

// disconnected notes that there is no stream any more, and reports whether there was one.
func (s *Subscriber) disconnected(server string, err error) (opened bool) {
	before, _ := s.Connection()
	now := Connection{Changed: before.Changed, Err: err, Refused: before.Refused}
	switch {
	case errors.Is(err, errDrained):
		s.log.Info("policy server asked to leave", "server", server)
		now.Changed = time.Now()
	case errors.Is(err, errReturn):
		s.log.Info("leaves for the node's own policy server, which answers again", "server", server)
		now.Changed = time.Now()
	case before.Server != "":
		s.log.Warn("policy server lost, the last rule set stays in force", "server", server, "err", err)
		now.Changed = time.Now()
	case before.Err == nil || kindOf(before.Err) != kindOf(err):
		s.log.Warn("policy server not reached, will try on", "server", server, "err", err)
	default:
		s.log.Debug("policy server not reached", "server", server, "err", err)
	}
	s.change(now)
	return before.Server != ""
}

// kindOf tells errors apart that call for different remedies: by their words, numbers aside, which are ports and times.
func kindOf(err error) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsDigit(r) {
			return -1
		}
		return r
	}, transport.Words(err))
}

func (s *Subscriber) change(connection Connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.connection = connection
	close(s.changed)
	s.changed = make(chan struct{})
}
