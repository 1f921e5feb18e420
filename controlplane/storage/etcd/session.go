package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nameward/nameward/controlplane/storage"
)

const (
	// leaseSeconds is for how long the others believe in a server that says nothing.
	leaseSeconds = 10
	renewEvery   = leaseSeconds * time.Second / 4
)

// session is the lease under which a server is registered.
type session struct {
	mu sync.Mutex // guards all below, and that one lease is made
	id clientv3.LeaseID
}

// lease returns the lease of the server, made if there is none.
func (s *session) lease(ctx context.Context, b *Backend) (clientv3.LeaseID, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.id != clientv3.NoLease {
		return s.id, nil
	}
	var id clientv3.LeaseID
	err := b.cluster.do(ctx, func(ctx context.Context, client *clientv3.Client) error {
		response, err := client.Grant(ctx, leaseSeconds)
		if err == nil {
			id = response.ID
		}
		return err //nolint:wrapcheck // the caller does
	})
	if err != nil {
		return 0, err
	}
	text, err := json.Marshal(storage.Server{Advertise: b.cfg.Advertise})
	if err != nil {
		return 0, err //nolint:wrapcheck // of a text
	}
	err = b.cluster.do(ctx, func(ctx context.Context, client *clientv3.Client) error {
		_, err := client.Put(ctx, b.serverKey(b.id), string(text), clientv3.WithLease(id))
		return err //nolint:wrapcheck // the caller does
	})
	if err != nil {
		return 0, err
	}
	s.id = id
	return id, nil
}

// run keeps the server registered until ctx ends, and then takes it away.
func (s *session) run(ctx context.Context, b *Backend) error {
	ticker := time.NewTicker(renewEvery)
	defer ticker.Stop()
	for {
		if err := s.renew(ctx, b); err != nil && ctx.Err() == nil {
			b.cfg.Log.Warn("server not registered in etcd, will try on", "err", err)
		}
		select {
		case <-ctx.Done():
			s.end(b)
			return nil
		case <-ticker.C:
		}
	}
}

func (s *session) renew(ctx context.Context, b *Backend) error {
	ctx, cancel := within(ctx)
	defer cancel()
	id, err := s.lease(ctx, b)
	if err != nil {
		return err
	}
	err = b.cluster.do(ctx, func(ctx context.Context, client *clientv3.Client) error {
		_, err := client.KeepAliveOnce(ctx, id)
		return err //nolint:wrapcheck // the log says what it was
	})
	if !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return err
	}
	// It was away for longer than the lease: the others take it for gone.
	s.mu.Lock()
	s.id = clientv3.NoLease
	s.mu.Unlock()
	_, err = s.lease(ctx, b)
	return err
}

func (s *session) end(b *Backend) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.id == clientv3.NoLease {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), attemptTimeout)
	defer cancel()
	err := b.cluster.do(ctx, func(ctx context.Context, client *clientv3.Client) error {
		_, err := client.Revoke(ctx, s.id)
		return err //nolint:wrapcheck // the log says what it was
	})
	if err != nil {
		b.cfg.Log.Warn("server still registered in etcd, for the time of its lease", "err", err)
	}
}
