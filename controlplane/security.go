package controlplane

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/nameward/nameward/api/transport"
)

// security is how the server and who connects to it know each other.
type security struct {
	source   *transport.Source // nil with plain text
	refusals *transport.Refusals
}

// newSecurity needs certificates at once: without them nobody could be served.
func newSecurity(ctx context.Context, cfg Config, log *slog.Logger) (*security, error) {
	s := &security{refusals: transport.NewRefusals(log)}
	if cfg.Insecure {
		return s, nil
	}
	s.source = transport.NewServerSource(cfg.TLS, log)
	if err := s.source.Load(ctx); err != nil {
		return nil, fmt.Errorf("load certificates: %w", err)
	}
	return s, nil
}

func (s *security) credentials() credentials.TransportCredentials {
	if s.source == nil {
		return transport.NewPlainServer(s.refusals)
	}
	return transport.NewServerCredentials(s.source, s.refusals)
}

// readBuffer is what gRPC reads from a connection through.
func (s *security) readBuffer() int {
	if s.source == nil {
		return readBuffer
	}
	return readBufferTLS
}

// peers are the credentials by which this server speaks to the others on its storage.
func (s *security) peers() credentials.TransportCredentials {
	if s.source == nil {
		return insecure.NewCredentials()
	}
	return transport.NewClientCredentials(s.source, s.refusals)
}

// run takes up new certificates until ctx ends.
func (s *security) run(ctx context.Context) error {
	if s.source == nil {
		<-ctx.Done()
		return nil
	}
	return s.source.Run(ctx) //nolint:wrapcheck // it says what it did
}

func (s *security) collectors() []prometheus.Collector {
	reloads := func() (reloads, failures uint64) {
		if s.source == nil {
			return 0, 0
		}
		return s.source.Stats()
	}
	return []prometheus.Collector{
		gauge("nameward_server_certificate_expiry_timestamp_seconds", "When the server's own certificate ends; +Inf with plain text.",
			func() float64 { return s.expiry((*transport.Material).Expiry) }),
		gauge("nameward_server_ca_expiry_timestamp_seconds", "When the first of the CAs ends that clients have their certificates from; +Inf with plain text.",
			func() float64 { return s.expiry((*transport.Material).AuthorityExpiry) }),
		counter("nameward_server_certificate_loads_total", "Times that certificates were put in force.",
			func() float64 { loads, _ := reloads(); return float64(loads) }),
		counter("nameward_server_certificate_load_failures_total", "Times that new certificates were broken, or did not come, and those before stayed in force.",
			func() float64 { _, failures := reloads(); return float64(failures) }),
		newRefusalCounts(s.refusals),
	}
}

// expiry returns a time of the certificates in force.
func (s *security) expiry(of func(*transport.Material) time.Time) float64 {
	if s.source == nil {
		return math.Inf(1)
	}
	m, _ := s.source.Current()
	if m == nil {
		return math.Inf(1)
	}
	return float64(of(m).Unix())
}

// refusalCounts says at each scrape how many connections were refused.
type refusalCounts struct {
	refusals *transport.Refusals
	desc     *prometheus.Desc
}

func newRefusalCounts(refusals *transport.Refusals) *refusalCounts {
	return &refusalCounts{refusals, prometheus.NewDesc(
		"nameward_server_connections_refused_total", "Connections to the API that were refused before any request, by reason.", []string{"reason"}, nil)}
}

// Describe is of prometheus.Collector.
func (c *refusalCounts) Describe(out chan<- *prometheus.Desc) { out <- c.desc }

// Collect is of prometheus.Collector.
func (c *refusalCounts) Collect(out chan<- prometheus.Metric) {
	for reason, count := range c.refusals.Counts() {
		out <- prometheus.MustNewConstMetric(c.desc, prometheus.CounterValue, float64(count), string(reason))
	}
}
