// Package access says who calls the policy server, and what they may: a caller's identity comes from its certificate,
// its role from the identity, and one table has the role that each method needs. What is not in the table is
// refused. How much one caller may have the server do at once, and how fast, is kept here too.
//
// A caller is judged before its request is read: who may not call a method cannot make the server hold what it sends.
package access

import (
	"context"
	"errors"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/nameward/nameward/api/identity"
	"github.com/nameward/nameward/api/transport"
)

// Anonymous is who calls a server without TLS.
const Anonymous = "anonymous"

// Caller is who makes a call.
type Caller struct {
	// ID is zero for an anonymous caller.
	ID identity.ID
	// Anonymous says that the server has no TLS: every caller may do everything.
	Anonymous bool
	// Role is empty for none.
	Role identity.Role
	// Address is where the call comes from.
	Address string
}

// String returns the identity, or `anonymous`.
func (c Caller) String() string {
	if c.Anonymous {
		return Anonymous
	}
	return c.ID.String()
}

type callerKey struct{}

// FromContext returns the caller of the request that ctx is of. Code that no request has called gets false.
func FromContext(ctx context.Context) (Caller, bool) {
	c, ok := ctx.Value(callerKey{}).(Caller)
	return c, ok
}

// NewContext returns a context of a caller's request.
func NewContext(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

var (
	errNoPeer = errors.New("request without a peer")
	errPlain  = errors.New("connection without TLS, which this server does not take")
)

// callerOf returns who is at the other end of a connection, without a role yet. Nobody is anonymous by accident: only
// where the server was told to do without TLS.
func callerOf(ctx context.Context, insecure bool) (Caller, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Caller{}, errNoPeer
	}
	c := Caller{Address: p.Addr.String()}
	id, err := identityOf(p.AuthInfo)
	if err != nil {
		return c, err
	}
	if id.IsZero() && !insecure {
		return c, errPlain
	}
	c.ID, c.Anonymous = id, id.IsZero()
	return c, nil
}

// identityOf returns whom the certificate of a connection speaks for, which the handshake has verified; nobody for one in
// plain text.
func identityOf(info credentials.AuthInfo) (identity.ID, error) {
	caller, err := transport.CallerFrom(peer.NewContext(context.Background(), &peer.Peer{AuthInfo: info}))
	return caller.ID, err //nolint:wrapcheck // says what it was
}
