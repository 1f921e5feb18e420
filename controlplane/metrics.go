package controlplane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/nameward/nameward/controlplane/ingest"
	"github.com/nameward/nameward/controlplane/store"
)

// newRegistry returns the registry of everything that is measured.
func newRegistry(s *store.Store, mappings *ingest.Table, flows *ingest.Flows, stages ...prometheus.Collector) *prometheus.Registry {
	began := s.Revision()
	registry := prometheus.NewRegistry()
	registry.MustRegister(stages...)
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		gauge("nameward_server_revision", "Revision of the last commit.", func() float64 { return float64(s.Revision()) }),
		counter("nameward_server_commits_total", "Commits since the server started.", func() float64 { return float64(s.Revision() - began) }),
		gauge("nameward_server_ingest_mappings", "Live mappings of all nodes.", func() float64 { return float64(mappings.Stats().Mappings) }),
		counter("nameward_server_ingest_observed_total", "Mappings that nodes reported as new or prolonged.", func() float64 { return float64(mappings.Stats().Observed) }),
		counter("nameward_server_ingest_expired_total", "Mappings that reached their expiry.", func() float64 { return float64(mappings.Stats().Expired) }),
		counter("nameward_server_ingest_evicted_total", "Mappings that lived but were over the limit.", func() float64 { return float64(mappings.Stats().Evicted) }),
		gauge("nameward_server_ingest_flow_events", "Flow events of all nodes.", func() float64 { return float64(flows.Stats().Events) }),
		counter("nameward_server_ingest_flow_events_observed_total", "Flow events that nodes told, again or for the first time.", func() float64 { return float64(flows.Stats().Observed) }),
		counter("nameward_server_ingest_flow_events_expired_total", "Flow events that were not seen for a day.", func() float64 { return float64(flows.Stats().Expired) }),
		counter("nameward_server_ingest_flow_events_evicted_total", "Flow events that were over the limit.", func() float64 { return float64(flows.Stats().Evicted) }),
	)
	return registry
}

func gauge(name, help string, value func() float64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
}

func counter(name, help string, value func() float64) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, value)
}

// serveMetrics serves the registry until ctx ends.
func serveMetrics(ctx context.Context, listener net.Listener, registry *prometheus.Registry, log *slog.Logger) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() {
		if err := server.Close(); err != nil {
			log.Warn("metrics server not closed", "err", err)
		}
	})
	defer stop()
	log.Info("serving metrics", "address", listener.Addr().String())
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics: %w", err)
	}
	return nil
}
