package dataplane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const metricPrefix = "nameward_agent_"

// metrics reads the status at each scrape: nothing is counted twice.
type metrics struct{ status *agentStatus }

// Describe says nothing, since the counters of the datapath name themselves.
func (metrics) Describe(chan<- *prometheus.Desc) {}

// Collect sends everything that the agent counts.
func (m metrics) Collect(out chan<- prometheus.Metric) {
	send := func(kind prometheus.ValueType, name, help string, value float64, labels ...string) {
		names, values := make([]string, 0, 1), make([]string, 0, 1)
		for i := 0; i+1 < len(labels); i += 2 {
			names, values = append(names, labels[i]), append(values, labels[i+1])
		}
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc(metricPrefix+name, help, names, nil), kind, value, values...)
	}
	counters, err := m.status.Counters()
	if err != nil {
		m.status.log.Warn("counters not read", "err", err)
	}
	for name, value := range counters {
		if result, ok := strings.CutPrefix(name, "dns_responses_"); ok {
			send(prometheus.CounterValue, "dns_responses_total", "DNS responses, by what became of them.", float64(value), "result", result)
		} else if verdict, ok := strings.CutPrefix(name, "verdicts_"); ok {
			send(prometheus.CounterValue, "verdicts_total", "New connections of selected workloads, by verdict.", float64(value), "verdict", verdict)
		} else if result, ok := strings.CutPrefix(name, "flow_events_"); ok {
			send(prometheus.CounterValue, "flow_events_total", "Connections that were denied or audited, by whether the agent was told.", float64(value), "result", result)
		} else {
			send(prometheus.CounterValue, name+"_total", "Counted by the agent, or by the datapath since it was made.", float64(value))
		}
	}
	state, _ := m.status.reconciler.State()
	if state.InForce != nil {
		send(prometheus.GaugeValue, "revision", "The revision in force.", float64(state.InForce.Number))
		send(prometheus.GaugeValue, "rule_set_info", "The content id of the rule set in force.", 1, "rule_set", state.InForce.ID.String())
	}
	connected := 0.0
	if m.status.connection().Server != "" {
		connected = 1
	}
	ended := m.status.ended()
	for reason, count := range map[string]uint64{"asked": ended.Asked, "returned": ended.Returned, "lost": ended.Lost, "failed": ended.Failed} {
		send(prometheus.CounterValue, "streams_ended_total", "Streams to policy servers that ended: the server asked to leave, the agent returned to its own, the stream was lost, or was never opened.", float64(count), "reason", reason)
	}
	send(prometheus.CounterValue, "moves_at_once_total", "Times that a server asked to leave and the agent went to another one without waiting.", float64(ended.AtOnce))
	send(prometheus.CounterValue, "retry_hints_total", "Times that a policy server said when to come again: the agent leaves it alone until then, for up to a minute, and a random time longer.", float64(ended.Hints))
	degraded, _ := m.status.Degraded()
	send(prometheus.GaugeValue, "connected", "1 while connected to a policy server.", connected)
	send(prometheus.GaugeValue, "degraded", "How many faults persist.", float64(len(degraded)))
	m.sendSecurity(send)
	send(prometheus.GaugeValue, "live_mappings", "Mappings that are known.", float64(m.status.table.Len()))
}

// sendSecurity sends what is known of certificates, where there are any.
func (m metrics) sendSecurity(send func(kind prometheus.ValueType, name, help string, value float64, labels ...string)) {
	s := m.status.security
	if s == nil || s.source == nil {
		return
	}
	if material := s.current(); material != nil {
		send(prometheus.GaugeValue, "certificate_expiry_timestamp_seconds", "When the agent's own certificate ends.", float64(material.Expiry().Unix()))
		send(prometheus.GaugeValue, "ca_expiry_timestamp_seconds", "When the first of the CAs ends that policy servers have their certificates from.", float64(material.AuthorityExpiry().Unix()))
	}
	loads, failures := s.source.Stats()
	send(prometheus.CounterValue, "certificate_loads_total", "Times that certificates were put in force.", float64(loads))
	send(prometheus.CounterValue, "certificate_load_failures_total", "Times that new certificates were broken, or did not come, and those before stayed in force.", float64(failures))
	for reason, count := range s.refusals.Counts() {
		send(prometheus.CounterValue, "connections_refused_total", "Connections to policy servers that either end refused, by reason.", float64(count), "reason", string(reason))
	}
}

// metricsServer serves /metrics.
type metricsServer struct {
	listener net.Listener
	server   *http.Server
	log      *slog.Logger
}

// listenMetrics returns nil where no metrics are wanted.
func listenMetrics(ctx context.Context, address string, status *agentStatus, log *slog.Logger) (*metricsServer, error) {
	if address == "" {
		return nil, nil
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics{status}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for metrics: %w", err)
	}
	return &metricsServer{listener, &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}, log}, nil
}

func (m *metricsServer) run(ctx context.Context) error {
	if m == nil {
		return nil
	}
	stop := context.AfterFunc(ctx, func() { _ = m.server.Close() })
	defer stop()
	m.log.Info("serving metrics", "address", m.listener.Addr().String())
	if err := m.server.Serve(m.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics: %w", err)
	}
	return nil
}
