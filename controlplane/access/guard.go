package access

import (
	"context"
	"log/slog"

	"google.golang.org/grpc"
	"google.golang.org/grpc/tap"
)

// Guard stands before every method of the API.
type Guard struct {
	rules map[string]rule
	roles *Roles
	// insecure says that connections without TLS are taken, and their callers are anonymous.
	insecure bool
	denials  *denials
	limits   *limits
	streams  *streams
	metrics  *metrics
}

// Auditor keeps on record what was denied.
type Auditor interface {
	// Denied is told of count calls of a method by one caller, the last of them now, and why.
	Denied(caller Caller, method, reason string, count int)
}

// NewGuard returns a guard. Calls that it denies go to the auditor and the log, a bounded number of them. With
// insecure it takes connections without TLS, whose callers may do everything.
func NewGuard(roles *Roles, insecure bool, auditor Auditor, log *slog.Logger) *Guard {
	m := newMetrics(roles)
	g := &Guard{
		rules: table(), roles: roles, insecure: insecure, denials: newDenials(auditor, m, log), limits: newLimits(m), streams: newStreams(), metrics: m,
	}
	roles.changed = g.rejudge
	return g
}

// Tap is a tap.ServerInHandle: it judges a call when its headers are there, before anything of its request is read,
// and puts the caller into the context.
func (g *Guard) Tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	caller, rule, err := g.judge(ctx, info.FullMethodName)
	if err != nil {
		return ctx, err
	}
	if !caller.Anonymous {
		leave, err := g.limits.enter(caller, rule.class)
		if err != nil {
			return ctx, err
		}
		// Nothing else tells a tap that the call has ended.
		context.AfterFunc(ctx, leave)
	}
	return NewContext(ctx, caller), nil
}

// Unary is a grpc.UnaryServerInterceptor. It must be before all others that let a request through.
func (g *Guard) Unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	ctx, err := g.admit(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	return handler(ctx, request)
}

// Stream is a grpc.StreamServerInterceptor. The stream's context ends, with the status that says why, when its caller
// may no longer have it: a handler must heed its cause.
func (g *Guard) Stream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx, err := g.admit(stream.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	caller, _ := FromContext(ctx)
	ctx, over := g.streams.begin(ctx, caller, info.FullMethod)
	defer over()
	return handler(server, &callersStream{stream, ctx})
}

type callersStream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // it is what a stream of gRPC has
}

// Unwrap returns the stream that it was made of.
func (s *callersStream) Unwrap() grpc.ServerStream { return s.ServerStream }

// Context returns that of the call, with its caller.
func (s *callersStream) Context() context.Context { return s.ctx }

// admit judges a call again, since roles may have changed since its headers came, and waits where its caller calls too
// often.
func (g *Guard) admit(ctx context.Context, method string) (context.Context, error) {
	caller, rule, err := g.judge(ctx, method)
	if err != nil {
		return nil, err
	}
	if !caller.Anonymous {
		if err := g.limits.pace(ctx, caller, rule.class); err != nil {
			return nil, err
		}
	}
	return NewContext(ctx, caller), nil
}

// judge returns who calls and what the method is, or the status that says why not.
func (g *Guard) judge(ctx context.Context, method string) (Caller, rule, error) {
	caller, err := callerOf(ctx, g.insecure)
	if err != nil {
		return caller, rule{}, g.denials.unknown(caller, method, err)
	}
	return g.allow(caller, method)
}

// allow returns the caller with the role that it has now, and what the method is.
func (g *Guard) allow(caller Caller, method string) (Caller, rule, error) {
	known, listed := g.rules[method]
	if !caller.Anonymous {
		caller.Role = g.roles.Of(caller.ID)
	}
	switch {
	case !listed:
		return caller, rule{}, g.denials.unlisted(caller, method)
	case caller.Anonymous || includes(caller.Role, known.needs):
		return caller, known, nil
	}
	return caller, rule{}, g.denials.denied(caller, method, known)
}
