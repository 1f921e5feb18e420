package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"

	"github.com/nameward/nameward/controlplane/storage"
)

const (
	// attemptTimeout is what one member gets before another is asked: a member that is paused, or cut off, holds its
	// connections and says nothing.
	attemptTimeout = time.Second
	roundPause     = 50 * time.Millisecond
	dialTimeout    = 2 * time.Second
	// keepalive finds out that a member is gone without a word. gRPC allows no less than 10 seconds.
	keepalive = 10 * time.Second
)

// cluster is a client for each member. The client of etcd spreads its calls over all, and a member that hangs would
// have every third of them.
type cluster struct {
	members []*clientv3.Client
	// preferred is the one that answered last.
	preferred atomic.Int64
}

func newCluster(endpoints []string, tlsConfig *tls.Config) (*cluster, error) {
	c := &cluster{}
	for _, endpoint := range endpoints {
		client, err := clientv3.New(clientv3.Config{
			Endpoints: []string{endpoint}, TLS: tlsConfig, Logger: zap.NewNop(),
			DialTimeout: dialTimeout, DialKeepAliveTime: keepalive, DialKeepAliveTimeout: dialTimeout,
			DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
				MinConnectTimeout: dialTimeout,
			})},
		})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("etcd endpoint %q: %w", endpoint, err), c.close())
		}
		c.members = append(c.members, client)
	}
	if len(c.members) == 0 {
		return nil, errors.New("no etcd endpoint is given")
	}
	return c, nil
}

func (c *cluster) close() error {
	var errs []error
	for _, member := range c.members {
		if err := member.Close(); err != nil && !errors.Is(err, context.Canceled) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// prefer moves on from a member.
func (c *cluster) prefer(after int64) {
	c.preferred.CompareAndSwap(after, (after+1)%int64(len(c.members)))
}

// do asks one member after another until one answers or ctx ends. A call may reach several of them, so it has to be
// one that may be made twice.
func (c *cluster) do(ctx context.Context, call func(context.Context, *clientv3.Client) error) error {
	var last error
	for tried := 1; ; tried++ {
		at := c.preferred.Load()
		attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
		err := call(attempt, c.members[at])
		cancel()
		switch {
		case err == nil || isAnswer(err):
			return err
		case ctx.Err() != nil:
			return errors.Join(ctx.Err(), last)
		}
		last = err
		c.prefer(at)
		if tried%len(c.members) == 0 {
			select {
			case <-ctx.Done():
				return errors.Join(ctx.Err(), last)
			case <-time.After(roundPause):
			}
		}
	}
}

// isAnswer reports whether an error is the cluster's answer, and not that it did not answer.
func isAnswer(err error) bool {
	for _, fault := range []error{errNotFound, errFormat, ErrChanged, storage.ErrCorrupt} {
		if errors.Is(err, fault) {
			return true
		}
	}
	var fault rpctypes.EtcdError
	if !errors.As(err, &fault) {
		return false
	}
	switch fault.Code() {
	case codes.InvalidArgument, codes.PermissionDenied, codes.Unauthenticated, codes.OutOfRange, codes.NotFound, codes.FailedPrecondition:
		return true
	case codes.ResourceExhausted:
		return errors.Is(err, rpctypes.ErrNoSpace)
	default:
		return false
	}
}

// within bounds a context by the time that a commit has.
func within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, commitTimeout)
}
