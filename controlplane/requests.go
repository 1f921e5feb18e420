package controlplane

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

// requests counts the requests of every method by the code that they ended with. Only methods that exist
// come here, so the labels are bounded.
type requests struct {
	ended *prometheus.CounterVec
}

func newRequests() *requests {
	return &requests{prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "nameward_server_requests_total", Help: "Requests that have ended, by method and gRPC code. Denied are those of any code but OK.",
	}, []string{"method", "code"})}
}

func (r *requests) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	response, err := handler(ctx, request)
	r.ended.WithLabelValues(info.FullMethod, status.Code(err).String()).Inc()
	return response, err
}

func (r *requests) stream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	err := handler(server, stream)
	r.ended.WithLabelValues(info.FullMethod, status.Code(err).String()).Inc()
	return err
}
