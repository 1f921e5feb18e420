package syncserver

import (
	"context"

	"google.golang.org/grpc/tap"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
)

type enderKey struct{}

// Tap has the server end streams of agents whenever it wants: what receives on a stream is ended by the context that gRPC
// gave it when its headers came, and by no context that is made of it later. Without that, each stream would need a
// goroutine that receives and another that waits for reasons to end. The grpc.Server must use it
// (grpc.InTapHandle); before it comes what else there is to tap.
func (s *Server) Tap(before tap.ServerInHandle) tap.ServerInHandle {
	return func(ctx context.Context, info *tap.Info) (context.Context, error) {
		if info.FullMethodName != agentv1.SyncService_Sync_FullMethodName {
			return before(ctx, info)
		}
		ctx, err := elsewhere(ctx, info, before)
		if err != nil {
			return ctx, err
		}
		ctx, cancel := context.WithCancel(ctx)
		return context.WithValue(ctx, enderKey{}, &ender{log: s.log, cancel: cancel}), nil
	}
}

// elsewhere calls a tap on a goroutine of its own. The one that reads from the connection of an agent, which calls this,
// lives as long as the connection: it would keep the stack that a judge of callers needs.
func elsewhere(ctx context.Context, info *tap.Info, call tap.ServerInHandle) (context.Context, error) {
	type result struct {
		ctx context.Context //nolint:containedctx // handed over at once
		err error
	}
	called := make(chan result, 1)
	go func() {
		ctx, err := call(ctx, info)
		called <- result{ctx, err}
	}()
	r := <-called
	return r.ctx, r.err
}
