package controlplane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/nameward/nameward/controlplane/ingest"
	"github.com/nameward/nameward/controlplane/store"
)

// newRegistry returns the registry of everything that is measured, of the process too.
func newRegistry(stages ...prometheus.Collector) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(stages...)
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return registry
}

// storeCollectors measures what the store holds.
func storeCollectors(s *store.Store) []prometheus.Collector {
	began := s.Revision()
	return []prometheus.Collector{
		newHoldings(s),
		gauge("nameward_server_revision", "Revision of the last commit.", func() float64 { return float64(s.Revision()) }),
		counter("nameward_server_commits_total", "Commits since the server started.", func() float64 { return float64(s.Revision() - began) }),
	}
}

// mappingCollectors measures the mappings of the fleet.
func mappingCollectors(cfg Config, mappings *ingest.Table) []prometheus.Collector {
	of := func(read func(ingest.Stats) float64) func() float64 {
		return func() float64 { return read(mappings.Stats()) }
	}
	return []prometheus.Collector{
		gauge("nameward_server_ingest_mappings", "Live mappings of all nodes.", of(func(s ingest.Stats) float64 { return float64(s.Mappings) })),
		gauge("nameward_server_ingest_mappings_limit", "How many live mappings are kept at most.", func() float64 { return float64(cfg.MaxMappings) }),
		counter("nameward_server_ingest_observed_total", "Mappings that nodes reported as new or prolonged.", of(func(s ingest.Stats) float64 { return float64(s.Observed) })),
		counter("nameward_server_ingest_expired_total", "Mappings that reached their expiry.", of(func(s ingest.Stats) float64 { return float64(s.Expired) })),
		counter("nameward_server_ingest_evicted_total", "Mappings that lived but were over the limit.", of(func(s ingest.Stats) float64 { return float64(s.Evicted) })),
		gauge("nameward_server_ingest_watches", "Readers that follow mappings.", of(func(s ingest.Stats) float64 { return float64(s.Watches) })),
		counter("nameward_server_ingest_watches_cut_off_total", "Readers of mappings that were too slow, and told so.", of(func(s ingest.Stats) float64 { return float64(s.CutOff) })),
	}
}

// flowCollectors measures the flow events of the fleet.
func flowCollectors(cfg Config, flows *ingest.Flows) []prometheus.Collector {
	of := func(read func(ingest.FlowStats) float64) func() float64 {
		return func() float64 { return read(flows.Stats()) }
	}
	return []prometheus.Collector{
		gauge("nameward_server_ingest_flow_events", "Flow events of all nodes.", of(func(s ingest.FlowStats) float64 { return float64(s.Events) })),
		gauge("nameward_server_ingest_flow_events_limit", "How many flow events are kept at most.", func() float64 { return float64(cfg.MaxFlowEvents) }),
		counter("nameward_server_ingest_flow_events_observed_total", "Flow events that nodes told, again or for the first time.", of(func(s ingest.FlowStats) float64 { return float64(s.Observed) })),
		counter("nameward_server_ingest_flow_events_expired_total", "Flow events that were not seen for a day.", of(func(s ingest.FlowStats) float64 { return float64(s.Expired) })),
		counter("nameward_server_ingest_flow_events_evicted_total", "Flow events that were over the limit.", of(func(s ingest.FlowStats) float64 { return float64(s.Evicted) })),
		gauge("nameward_server_ingest_flow_event_watches", "Readers that follow flow events.", of(func(s ingest.FlowStats) float64 { return float64(s.Watches) })),
		counter("nameward_server_ingest_flow_event_watches_cut_off_total", "Readers of flow events that were too slow, and told so.", of(func(s ingest.FlowStats) float64 { return float64(s.CutOff) })),
	}
}

func gauge(name, help string, value func() float64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
}

func counter(name, help string, value func() float64) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, value)
}

// serveMetrics serves the registry, and profiles if they are wanted, until ctx ends.
func serveMetrics(ctx context.Context, listener net.Listener, registry *prometheus.Registry, profiles bool, log *slog.Logger) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	if profiles {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
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
