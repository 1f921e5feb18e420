package controlplane

import (
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// maxGreeting is how many connections may be there whose peer is not known yet, and maxGreetingFrom of one address,
	// which may be that of a whole fleet behind a translator, all of which comes when the server starts. What is over
	// this is a flood, and is closed before it costs anything.
	maxGreeting, maxGreetingFrom = 16_384, 8192
	refusalsInterval             = time.Minute
	// Reasons for a refusal.
	overLimit, overGreeting = "limit", "greeting"
)

// connections counts the connections of a listener, and the bytes on them: what is on the wire, TLS included. It
// counts there, not by gRPC's own handlers, which cost every message of every stream. What is over a limit is closed
// at once.
type connections struct {
	net.Listener
	// most is how many may be open, mostGreeting how many before they say who they are, mostFrom of these from one address.
	most, mostGreeting, mostFrom int
	log                          *slog.Logger

	open                     atomic.Int64
	accepted, received, sent atomic.Uint64

	mu sync.Mutex // guards all below
	// greeting counts those whose handshake is not over, by where they come from.
	greeting map[netip.Addr]int
	greeters int
	told     time.Time

	refused *prometheus.CounterVec
}

func newConnections(listener net.Listener, most int, log *slog.Logger) *connections {
	return &connections{
		Listener: listener, most: most, mostGreeting: maxGreeting, mostFrom: maxGreetingFrom, log: log, greeting: map[netip.Addr]int{},
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nameward_server_connections_over_limit_total",
			Help: "Connections to the API that were closed at once: over --max-connections (limit), or one of too many whose peer was not known yet (greeting).",
		}, []string{"limit"}),
	}
}

// Accept returns the next connection that is within the limits.
func (c *connections) Accept() (net.Conn, error) {
	for {
		conn, err := c.Listener.Accept()
		if err != nil {
			return nil, err //nolint:wrapcheck // the server looks at it
		}
		counted := &countedConnection{Conn: conn, counts: c}
		if from, ok := netip.AddrFromSlice(addressOf(conn)); ok {
			counted.from = from.Unmap()
		}
		if reason := c.admit(counted); reason != "" {
			c.refuse(conn, reason)
			continue
		}
		counted.ready.open(conn)
		c.open.Add(1)
		c.accepted.Add(1)
		return counted, nil
	}
}

func addressOf(conn net.Conn) net.IP {
	if address, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		return address.IP
	}
	return nil
}

// admit takes note of a connection, or says which limit it is over.
func (c *connections) admit(conn *countedConnection) (reason string) {
	if c.open.Load() >= int64(c.most) {
		return overLimit
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.greeters >= c.mostGreeting || c.greeting[conn.from] >= c.mostFrom {
		return overGreeting
	}
	c.greeters++
	c.greeting[conn.from]++
	return ""
}

// greeted is told of the end of a handshake, whatever it was.
func (c *connections) greeted(from netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.greeters--
	if c.greeting[from]--; c.greeting[from] == 0 {
		delete(c.greeting, from)
	}
}

// refuse closes a connection. The first of a minute is logged.
func (c *connections) refuse(conn net.Conn, reason string) {
	c.refused.WithLabelValues(reason).Inc()
	c.mu.Lock()
	now := time.Now()
	tell := now.Sub(c.told) >= refusalsInterval
	if tell {
		c.told = now
	}
	c.mu.Unlock()
	if tell {
		c.log.Warn("connection refused", "reason", reason, "peer", conn.RemoteAddr().String())
	}
	_ = conn.Close() // there is nothing to lose on it
}

func (c *connections) collectors() []prometheus.Collector {
	return []prometheus.Collector{
		gauge("nameward_server_connections", "Connections to the API that are open.", func() float64 { return float64(c.open.Load()) }),
		gauge("nameward_server_connections_limit", "How many connections to the API may be open.", func() float64 { return float64(c.most) }),
		counter("nameward_server_connections_accepted_total", "Connections to the API that were accepted.", func() float64 { return float64(c.accepted.Load()) }),
		c.refused,
		counter("nameward_server_received_bytes_total", "Bytes that came in on connections to the API.", func() float64 { return float64(c.received.Load()) }),
		counter("nameward_server_sent_bytes_total", "Bytes that went out on connections to the API.", func() float64 { return float64(c.sent.Load()) }),
	}
}

type countedConnection struct {
	net.Conn
	counts          *connections
	from            netip.Addr
	closed, greeted sync.Once
	ready           readyRead
}

// Greeted says that the handshake is over; see access.Greeted.
func (c *countedConnection) Greeted() { c.greeted.Do(func() { c.counts.greeted(c.from) }) }

// Read counts what comes in.
func (c *countedConnection) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.counts.received.Add(uint64(n)) //nolint:gosec // never negative
	return n, err                    //nolint:wrapcheck // of the connection
}

// Write counts what goes out.
func (c *countedConnection) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.counts.sent.Add(uint64(n)) //nolint:gosec // never negative
	return n, err                //nolint:wrapcheck // of the connection
}

// Close counts the end, once.
func (c *countedConnection) Close() error {
	c.Greeted()
	c.closed.Do(func() { c.counts.open.Add(-1) })
	return c.Conn.Close() //nolint:wrapcheck // of the connection
}
