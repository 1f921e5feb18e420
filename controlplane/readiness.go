package controlplane

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/nameward/nameward/controlplane/peer"
	"github.com/nameward/nameward/controlplane/storage/etcd"
	"github.com/nameward/nameward/controlplane/syncserver"
)

const (
	// freshTime is for how long a server calls itself up to date after it last knew.
	freshTime = 3 * time.Second
	// staleTime is when one that is not is no place for agents and clients.
	staleTime  = 10 * time.Second
	judgeEvery = 500 * time.Millisecond
)

// readiness says by the server's health, and a metric, whether the server is up to date. One that is not serves on:
// what it has is what was in force. Its agents are asked to go where it is better.
type readiness struct {
	storage *etcd.Backend
	peers   *peer.Peers
	agents  *syncserver.Server
	health  *health.Server
	log     *slog.Logger
	ready   *atomic.Bool
}

func (r readiness) run(ctx context.Context) error {
	ticker := time.NewTicker(judgeEvery)
	defer ticker.Stop()
	asked := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if r.agents.Draining() {
			continue // it has said already that it is no place for anybody
		}
		stale := r.storage.Stale()
		ready := stale < staleTime
		if before := r.ready.Swap(ready); before != ready {
			status := healthv1.HealthCheckResponse_SERVING
			if ready {
				r.log.Info("up to date with etcd again")
			} else {
				status = healthv1.HealthCheckResponse_NOT_SERVING
				r.log.Error("etcd cannot be reached: nothing can be changed, and what others change is not seen", "since", stale.Round(time.Second))
			}
			r.health.SetServingStatus("", status)
		}
		if ready {
			asked = false
			continue
		}
		// Where no server is up to date, none is better than another. One that sees nobody cannot know.
		if fresh, alone := r.peers.Elsewhere(); !asked && (fresh || alone) {
			asked = true
			r.log.Warn("agents are asked to go to another server")
			r.agents.Leave()
		}
	}
}

// readyCollector measures whether the server is ready.
func readyCollector(ready func() bool) prometheus.Collector {
	return gauge("nameward_server_ready", "1 when the server is up to date with its storage, as its health says; 0 when it has lost etcd, or is about to stop.", func() float64 {
		if ready() {
			return 1
		}
		return 0
	})
}
