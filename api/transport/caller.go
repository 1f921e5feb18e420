package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/nameward/nameward/api/identity"
)

// Caller is who is at the other end of a request.
type Caller struct {
	// ID is zero where the connection is plain text, from this machine.
	ID identity.ID
	// Certificate is what it was proved with, nil with plain text.
	Certificate *x509.Certificate
}

// Anonymous reports whether nobody knows who it is.
func (c Caller) Anonymous() bool { return c.ID.IsZero() }

// ErrUnknownCaller says that a request came over a connection that this package has not made.
var ErrUnknownCaller = errors.New("nobody knows who is at the other end")

// plainAuthType is what gRPC calls connections in plain text.
const plainAuthType = "insecure"

// CallerFrom returns who sent a request that a server is answering.
func CallerFrom(ctx context.Context) (Caller, error) {
	from, ok := peer.FromContext(ctx)
	if !ok || from.AuthInfo == nil {
		return Caller{}, ErrUnknownCaller
	}
	if from.AuthInfo.AuthType() == plainAuthType {
		return Caller{}, nil
	}
	info, ok := from.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return Caller{}, ErrUnknownCaller
	}
	return callerOf(info.State)
}

// callerOf returns who a verified certificate is for.
func callerOf(state tls.ConnectionState) (Caller, error) {
	if len(state.VerifiedChains) == 0 {
		return Caller{}, ErrUnknownCaller
	}
	certificate := state.PeerCertificates[0]
	id, err := identity.FromCertificate(certificate)
	if err != nil {
		return Caller{}, fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	return Caller{id, certificate}, nil
}

// accepts returns why a server does not take somebody, nil when it does.
func (c Config) accepts(m *Material, caller Caller) error {
	switch {
	case caller.ID.DNS() && !c.NodeDNSNames:
		return refusedf(PeerIdentity, "the client's certificate has no SPIFFE ID, only the DNS name %s, which this server does not take for an identity (--node-dns-names)", caller.ID)
	case !caller.ID.DNS() && caller.ID.TrustDomain() != m.TrustDomain:
		return refusedf(PeerIdentity, "the client's certificate is of %s, of another trust domain than this server's, %q", caller.ID, m.TrustDomain)
	}
	return nil
}
