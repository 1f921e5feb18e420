package access

import (
	"fmt"
	"net"
	"sync"

	"google.golang.org/grpc/credentials"

	"github.com/nameward/nameward/api/identity"
)

// A caller's connections. Each has streams of its own, so that without a bound on them there is none on a caller.
const (
	nodeConnections  = 8
	otherConnections = 256
)

// Greeted is a connection that wants to know when its handshake is over: until then nobody knows who it is.
type Greeted interface {
	Greeted()
}

// Credentials are others that let a caller have so many connections, and no more.
func (g *Guard) Credentials(inner credentials.TransportCredentials) credentials.TransportCredentials {
	return &boundedCredentials{TransportCredentials: inner, guard: g, open: map[identity.ID]int{}}
}

type boundedCredentials struct {
	credentials.TransportCredentials

	guard *Guard
	mu    sync.Mutex
	open  map[identity.ID]int // guarded by mu
}

// ServerHandshake makes the handshake and counts the connection as one of its peer.
func (b *boundedCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := b.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err //nolint:wrapcheck // says what it was
	}
	if greeted, ok := raw.(Greeted); ok {
		greeted.Greeted()
	}
	id, err := identityOf(info)
	if err != nil || id.IsZero() {
		// Whoever is nobody hears so at the first call: the end of a connection says nothing.
		return conn, info, nil
	}
	leave, err := b.enter(id)
	if err != nil {
		return nil, nil, err
	}
	return &callersConn{Conn: conn, leave: leave}, info, nil
}

// Clone returns itself: the numbers are of all connections.
func (b *boundedCredentials) Clone() credentials.TransportCredentials { return b }

func (b *boundedCredentials) enter(id identity.ID) (leave func(), err error) {
	most := otherConnections
	if b.guard.roles.Of(id) == identity.Node {
		most = nodeConnections
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open[id] >= most {
		b.guard.metrics.connections.Inc()
		return nil, fmt.Errorf("%s has %d connections, and no more may be", id, most)
	}
	b.open[id]++
	return sync.OnceFunc(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.open[id]--; b.open[id] == 0 {
			delete(b.open, id)
		}
	}), nil
}

type callersConn struct {
	net.Conn
	leave func()
}

// Close closes the connection, which is its peer's no longer.
func (c *callersConn) Close() error {
	c.leave()
	return c.Conn.Close() //nolint:wrapcheck // of the connection
}
