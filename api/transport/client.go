package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync/atomic"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/nameward/nameward/api/identity"
)

// ClientCredentials has a gRPC client speak mutual TLS 1.3.
type ClientCredentials struct {
	credentials.TransportCredentials // of a server, which this is not

	source   *Source
	refusals *Refusals
}

// NewClientCredentials makes the credentials of a client.
func NewClientCredentials(source *Source, refusals *Refusals) *ClientCredentials {
	return &ClientCredentials{insecure.NewCredentials(), source, refusals}
}

// Info implements credentials.TransportCredentials.
func (c *ClientCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// Clone implements credentials.TransportCredentials. It shares all of it.
func (c *ClientCredentials) Clone() credentials.TransportCredentials { return c }

var errClientAlone = errors.New("these credentials are those of a client")

// ServerHandshake implements credentials.TransportCredentials.
func (c *ClientCredentials) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errClientAlone
}

// ClientHandshake implements credentials.TransportCredentials.
func (c *ClientCredentials) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	m, err := c.source.Current()
	if m == nil {
		refusal := &RefusedError{OwnMissing, "this program has no certificate to connect with", err}
		c.refusals.count(refusal, raw.RemoteAddr(), nil)
		return nil, nil, refusal
	}
	secured := tls.Client(raw, c.config(m, authority))
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, nil, c.refused(err, raw.RemoteAddr(), m)
	}
	return &heardConn{Conn: secured, credentials: c, material: m}, newTLSInfo(secured.ConnectionState()), nil
}

// refused puts the error of a handshake into words, where it is a refusal.
func (c *ClientCredentials) refused(err error, server net.Addr, m *Material) error {
	refusal := judge(err, "server")
	if refusal == nil {
		return fmt.Errorf("the server broke off the TLS handshake without a reason, it may not speak TLS on this port: %w", err)
	}
	if refusal.Reason == OwnExpired || refusal.Reason == OwnRefused || refusal.Reason == OwnUnknown {
		refusal.text += fmt.Sprintf(" (%s, of %s, until %s)", m.name(), m.Leaf.Issuer, inUTC(m.Expiry()))
	}
	c.refusals.count(refusal, server, unverified(err))
	return refusal
}

// config is of one connection: a renewed certificate counts from the next on.
func (c *ClientCredentials) config(m *Material, authority string) *tls.Config {
	cfg := c.source.cfg
	host, _, err := net.SplitHostPort(authority)
	if err != nil {
		host = authority
	}
	byIdentity := cfg.SPIFFESocket != "" && cfg.ServerName == ""
	if cfg.ServerName != "" {
		host = cfg.ServerName
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{protocol}, ServerName: host, RootCAs: m.roots,
		// Not Certificates: of those Go sends none when the server names other CAs, and the reason would be lost.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &m.certificate, nil },
		// An SVID need not name a host: then whose it is decides, and verify looks at the chain.
		InsecureSkipVerify: byIdentity, //nolint:gosec // verified below
		VerifyConnection: func(state tls.ConnectionState) error {
			return verifyServer(m, state, byIdentity)
		},
	}
}

// verifyServer looks at whose certificate it is. Where byIdentity, nobody has looked at the chain, nor at the host name.
func verifyServer(m *Material, state tls.ConnectionState, byIdentity bool) error {
	certificate := state.PeerCertificates[0]
	if byIdentity {
		if err := verifyChain(m, state.PeerCertificates); err != nil {
			return err
		}
	}
	if len(certificate.URIs) == 0 && !byIdentity {
		return nil // of a CA that knows no SPIFFE: the host name says who it is
	}
	id, err := identity.FromCertificate(certificate)
	if err != nil {
		return &RefusedError{PeerIdentity, "the server's certificate does not say who it is for", err}
	}
	role, _, ok := id.Named()
	switch {
	case id.TrustDomain() != m.TrustDomain:
		return refusedf(PeerIdentity, "the server's certificate is of %s, of another trust domain than this program's, %q", id, m.TrustDomain)
	case !ok || role != identity.Server:
		return refusedf(PeerIdentity, "who answers is no server: its certificate is of %s", id)
	}
	return nil
}

func verifyChain(m *Material, certificates []*x509.Certificate) error {
	intermediates := x509.NewCertPool()
	for _, certificate := range certificates[1:] {
		intermediates.AddCert(certificate)
	}
	_, err := certificates[0].Verify(x509.VerifyOptions{Roots: m.roots, Intermediates: intermediates})
	return err //nolint:wrapcheck // put into words by who asks
}

// heardConn hears what the server has against this client: with TLS 1.3 that comes when the client's handshake is over.
type heardConn struct {
	net.Conn
	credentials *ClientCredentials
	material    *Material
	heard       atomic.Bool
}

// Read implements net.Conn.
func (c *heardConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err == nil {
		if !c.heard.Load() {
			c.heard.Store(true)
		}
		return n, nil
	}
	if c.heard.Load() {
		return n, err //nolint:wrapcheck // of the connection
	}
	var remote *net.OpError
	if errors.As(err, &remote) && remote.Op == "remote error" {
		return n, c.credentials.refused(err, c.RemoteAddr(), c.material)
	}
	return n, err //nolint:wrapcheck // of the connection
}
