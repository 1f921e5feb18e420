package controlplane

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

// requests counts the requests of every method: those that run, and by the code that they ended with. Only methods
// that exist come here, so the labels are bounded.
type requests struct {
	ended   *prometheus.CounterVec
	running *prometheus.GaugeVec
	seconds *prometheus.HistogramVec
}

func newRequests() *requests {
	return &requests{
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nameward_server_requests_total", Help: "Requests that have ended, by method and gRPC code. Denied are those of any code but OK.",
		}, []string{"method", "code"}),
		running: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "nameward_server_requests_running", Help: "Requests and streams that have not ended, by method.",
		}, []string{"method"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "nameward_server_request_seconds", Help: "Time from a request to its answer, by method; streams have none.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 9),
		}, []string{"method"}),
	}
}

func (r *requests) collectors() []prometheus.Collector {
	return []prometheus.Collector{r.ended, r.running, r.seconds}
}

func (r *requests) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	began := time.Now()
	defer r.run(info.FullMethod)()
	response, err := handler(ctx, request)
	r.seconds.WithLabelValues(info.FullMethod).Observe(time.Since(began).Seconds())
	r.ended.WithLabelValues(info.FullMethod, status.Code(err).String()).Inc()
	return response, err
}

func (r *requests) stream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	defer r.run(info.FullMethod)()
	err := handler(server, stream)
	r.ended.WithLabelValues(info.FullMethod, status.Code(err).String()).Inc()
	return err
}

// run counts a request that runs, until what it returns is called.
func (r *requests) run(method string) (end func()) {
	running := r.running.WithLabelValues(method)
	running.Inc()
	return running.Dec
}
