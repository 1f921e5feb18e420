package controlplane

import (
	"net"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// connections counts the connections of a listener, and the bytes on them: what is on the wire, TLS included. It
// counts there, not by gRPC's own handlers, which cost every message of every stream.
type connections struct {
	net.Listener
	open                     atomic.Int64
	accepted, received, sent atomic.Uint64
}

// Accept counts a connection.
func (c *connections) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err //nolint:wrapcheck // the server looks at it
	}
	c.open.Add(1)
	c.accepted.Add(1)
	return &countedConnection{Conn: conn, counts: c}, nil
}

func (c *connections) collectors() []prometheus.Collector {
	return []prometheus.Collector{
		gauge("nameward_server_connections", "Connections to the API that are open.", func() float64 { return float64(c.open.Load()) }),
		counter("nameward_server_connections_accepted_total", "Connections to the API that were accepted.", func() float64 { return float64(c.accepted.Load()) }),
		counter("nameward_server_received_bytes_total", "Bytes that came in on connections to the API.", func() float64 { return float64(c.received.Load()) }),
		counter("nameward_server_sent_bytes_total", "Bytes that went out on connections to the API.", func() float64 { return float64(c.sent.Load()) }),
	}
}

type countedConnection struct {
	net.Conn
	counts *connections
	closed sync.Once
}

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
	c.closed.Do(func() { c.counts.open.Add(-1) })
	return c.Conn.Close() //nolint:wrapcheck // of the connection
}
