package localserver

import (
	"context"
	"time"

	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
)

// healthInterval is how often faults are looked at that come without a sign.
const healthInterval = 2 * time.Second

// sayHealth says two things. The whole (no name): whether all is as it should be; it is not while a fault
// persists. The local service by its name: that the agent answers; what restarts an agent goes by that, since
// a restart mends no policy and no disk.
func (s *Server) sayHealth(health *health.Server) <-chan struct{} {
	faults, changed := s.agent.Degraded()
	whole := healthv1.HealthCheckResponse_SERVING
	if len(faults) > 0 {
		whole = healthv1.HealthCheckResponse_NOT_SERVING
	}
	health.SetServingStatus("", whole)
	health.SetServingStatus(agentv1.LocalService_ServiceDesc.ServiceName, healthv1.HealthCheckResponse_SERVING)
	return changed
}

func (s *Server) keepHealth(ctx context.Context, health *health.Server) error {
	tick := time.NewTicker(healthInterval)
	defer tick.Stop()
	for {
		changed := s.sayHealth(health)
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-tick.C:
		}
	}
}
