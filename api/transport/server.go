package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
)

const (
	protocol = "h2"
	// handshakeRecord is the first byte of a TLS connection.
	handshakeRecord = 0x16
	// lingerTime is what a refused peer gets to read why: what is closed at once with bytes unread is reset, and the
	// reason lost.
	lingerTime, lingerBytes = time.Second, 64 << 10
)

// ServerCredentials has a gRPC server speak mutual TLS 1.3. A peer that is refused is told why, where it can hear it.
type ServerCredentials struct {
	credentials.TransportCredentials // of a client, which this is not

	source   *Source
	refusals *Refusals
}

// NewServerCredentials makes the credentials of a server.
func NewServerCredentials(source *Source, refusals *Refusals) *ServerCredentials {
	return &ServerCredentials{insecure.NewCredentials(), source, refusals}
}

// Info implements credentials.TransportCredentials.
func (c *ServerCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// Clone implements credentials.TransportCredentials. It shares all of it.
func (c *ServerCredentials) Clone() credentials.TransportCredentials { return c }

var errServerAlone = errors.New("these credentials are those of a server")

// ClientHandshake implements credentials.TransportCredentials.
func (c *ServerCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errServerAlone
}

// ServerHandshake implements credentials.TransportCredentials.
func (c *ServerCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, first, err := peek(raw)
	if err != nil {
		return nil, nil, io.EOF // a probe of the port
	}
	if first != handshakeRecord {
		refusal := refusedf(PlainText, "this server speaks TLS, and the client plain text: leave out --insecure, and give a certificate")
		c.refusals.count(refusal, raw.RemoteAddr(), nil)
		answer(conn, codes.Unauthenticated, refusal.Error())
		return nil, nil, refusal
	}
	m, err := c.source.Current()
	if m == nil {
		return nil, nil, err
	}
	secured := tls.Server(conn, m.server)
	if err := secured.Handshake(); err != nil {
		refusal := judge(err, "client")
		if refusal == nil {
			return nil, nil, io.EOF
		}
		c.refusals.count(refusal, raw.RemoteAddr(), unverified(err))
		linger(conn)
		return nil, nil, refusal
	}
	state := secured.ConnectionState()
	caller, err := callerOf(state)
	if err == nil {
		err = c.source.cfg.accepts(m, caller)
	}
	if err != nil {
		refusal := asRefusal(err)
		c.refusals.count(refusal, raw.RemoteAddr(), state.PeerCertificates[0])
		answer(secured, codes.Unauthenticated, refusal.Error())
		return nil, nil, refusal
	}
	return secured, newTLSInfo(state), nil
}

// newServerConfig is of all connections that are made with a certificate: a renewed one counts from the next on. There are
// no tickets, by which a client would come back without its certificate being looked at.
func newServerConfig(certificate tls.Certificate, roots *x509.CertPool) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{protocol}, SessionTicketsDisabled: true,
		Certificates: []tls.Certificate{certificate},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: roots,
	}
}

func newTLSInfo(state tls.ConnectionState) credentials.TLSInfo {
	return credentials.TLSInfo{State: state, CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}
}

func asRefusal(err error) *RefusedError {
	if refusal, ok := errors.AsType[*RefusedError](err); ok {
		return refusal
	}
	return &RefusedError{PeerIdentity, "the client's certificate does not say who it is for", err}
}

// plainServer is a server in plain text that tells those who come with TLS.
type plainServer struct {
	credentials.TransportCredentials
	refusals *Refusals
}

// NewPlainServer makes the credentials of a server in plain text.
func NewPlainServer(refusals *Refusals) credentials.TransportCredentials {
	return &plainServer{insecure.NewCredentials(), refusals}
}

// Clone implements credentials.TransportCredentials. It shares all of it.
func (c *plainServer) Clone() credentials.TransportCredentials { return c }

// ServerHandshake implements credentials.TransportCredentials.
func (c *plainServer) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, first, err := peek(raw)
	if err != nil {
		return nil, nil, io.EOF
	}
	if first == handshakeRecord {
		refusal := refusedf(PlainText, "this server speaks plain text (--insecure), and the client TLS")
		c.refusals.count(refusal, raw.RemoteAddr(), nil)
		// The beginning of HTTP/2 in plain text, by which every TLS client sees what it has before it.
		if _, err := raw.Write([]byte{0, 0, 0, 4, 0, 0, 0, 0, 0}); err == nil {
			linger(conn)
		}
		return nil, nil, refusal
	}
	return c.TransportCredentials.ServerHandshake(conn)
}

// peekedConn gives back the byte that was looked at.
type peekedConn struct {
	net.Conn
	first []byte // of the goroutine that reads
}

// peek waits for the first byte.
func peek(raw net.Conn) (*peekedConn, byte, error) {
	first := make([]byte, 1)
	if _, err := io.ReadFull(raw, first); err != nil {
		return nil, 0, err //nolint:wrapcheck // nobody hears of it
	}
	return &peekedConn{raw, first}, first[0], nil
}

// Read implements net.Conn.
func (c *peekedConn) Read(b []byte) (int, error) {
	if len(c.first) > 0 && len(b) > 0 {
		b[0], c.first = c.first[0], nil
		return 1, nil
	}
	return c.Conn.Read(b) //nolint:wrapcheck // of the connection
}

// readyReader is what gRPC reads with where a connection has it: it waits until something is there, and takes a buffer
// from the pool for it only then.
type readyReader interface {
	ReadOnReady(size int, pool mem.BufferPool) (buffer *[]byte, n int, err error)
}

// ReadOnReady is of a readyReader, as far as the connection is one.
func (c *peekedConn) ReadOnReady(size int, pool mem.BufferPool) (buffer *[]byte, n int, err error) {
	if ready, ok := c.Conn.(readyReader); ok && len(c.first) == 0 {
		return ready.ReadOnReady(size, pool) //nolint:wrapcheck // of the connection
	}
	buffer = pool.Get(size)
	if n, err = c.Read(*buffer); n == 0 {
		pool.Put(buffer)
		buffer = nil
	}
	return buffer, n, err
}

// linger reads until the peer has read what was said and goes, for a short time.
func linger(conn net.Conn) {
	if err := conn.SetReadDeadline(time.Now().Add(lingerTime)); err != nil {
		return
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(conn, lingerBytes))
}
