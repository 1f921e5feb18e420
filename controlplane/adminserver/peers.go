package adminserver

import (
	"context"
	"slices"
)

// Peers are the other servers on the same storage, whose nodes are known here by what they say.
type Peers interface {
	// Unreachable returns the addresses of those that say nothing, and a channel that closes when they are others.
	Unreachable() (addresses []string, changed <-chan struct{})
}

// alone is where there is one server.
type alone struct{}

// Unreachable returns nothing, for ever.
func (alone) Unreachable() ([]string, <-chan struct{}) { return nil, nil }

// whileReached returns a context that ends with errPeerLost when a server cannot be reached that is not among those
// told. release must be called.
func whileReached(ctx context.Context, peers Peers, told []string) (bounded context.Context, release func()) {
	bounded, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			now, changed := peers.Unreachable()
			for _, address := range now {
				if !slices.Contains(told, address) {
					cancel(errPeerLost)
					return
				}
			}
			select {
			case <-changed:
			case <-bounded.Done():
				return
			}
		}
	}()
	return bounded, func() {
		cancel(context.Canceled)
		<-done
	}
}
