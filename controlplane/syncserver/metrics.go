package syncserver

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	streams    prometheus.GaugeFunc
	deliveries *prometheus.CounterVec
	// Those of deliveries by form.
	snapshots, changes, resumed  prometheus.Counter
	refusals                     prometheus.Counter
	refusedClaims                prometheus.Counter
	refusedIdentities            prometheus.Counter
	firstExpiry                  prometheus.GaugeFunc
	refusedReports               prometheus.Counter
	paced                        prometheus.Counter
	bounded                      prometheus.Counter
	waiting                      prometheus.GaugeFunc
	draining                     prometheus.GaugeFunc
	asked                        prometheus.Counter
	refusedStopping, refusedBusy prometheus.Counter
	ended                        *prometheus.CounterVec
	// Those of ended by outcome.
	left, cutOff prometheus.Counter
}

func newMetrics(claims *claims, admission *admission, draining func() bool) metrics {
	m := metrics{
		streams: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "nameward_server_streams", Help: "Nodes that are connected.",
		}, func() float64 { return float64(claims.len()) }),
		deliveries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nameward_server_deliveries_total",
			Help: "Rule sets handed to streams: whole (snapshot), as changes, or found in force already (resumed).",
		}, []string{"form"}),
		refusals: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "nameward_server_rule_sets_refused_total", Help: "Rule sets that nodes could not apply.",
		}),
		refusedClaims: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "nameward_server_node_claims_refused_total", Help: "Streams refused because another live agent had the node.",
		}),
		refusedIdentities: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "nameward_server_node_identities_refused_total", Help: "Streams refused because the certificate was not that of the node that the agent said.",
		}),
		firstExpiry: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "nameward_server_node_certificate_expiry_timestamp_seconds",
			Help: "When the first certificate of the nodes that are connected ends; +Inf for none.",
		}, claims.firstExpiry),
		refusedReports: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "nameward_server_ingest_refused_total", Help: "Reported mappings and flow events that could not be read.",
		}),
		paced: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "nameward_server_sync_paced_total", Help: "Times that a node which said too much had to wait before more was read.",
		}),
		bounded: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "nameward_server_sync_bounded_total",
			Help: "Messages of nodes that were over a limit: a hello or a batch that was refused, a status or an error of which the rest was left out.",
		}),
		waiting: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "nameward_server_streams_waiting", Help: "Nodes that wait for their turn to join.",
		}, func() float64 { return float64(admission.waiting.Load()) }),
		draining: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "nameward_server_draining", Help: "1 while a server that stops lets its agents leave, and begins no stream.",
		}, func() float64 {
			if draining() {
				return 1
			}
			return 0
		}),
		asked: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "nameward_server_agents_asked_to_leave_total", Help: "Agents that were told to go to another server.",
		}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nameward_server_agents_left_total",
			Help: "Agents that were asked to leave, by what became of them: gone by themselves (left), or not in time (cut_off).",
		}, []string{"outcome"}),
		refusedStopping: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "nameward_server_streams_refused_stopping_total", Help: "Agents that came while the server was about to stop, and were sent away.",
		}),
		refusedBusy: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "nameward_server_streams_refused_busy_total", Help: "Agents that had waited for their turn to join for too long, and were told to come again later.",
		}),
	}
	m.snapshots, m.changes = m.deliveries.WithLabelValues("snapshot"), m.deliveries.WithLabelValues("changes")
	m.resumed = m.deliveries.WithLabelValues("resumed")
	m.left, m.cutOff = m.ended.WithLabelValues("left"), m.ended.WithLabelValues("cut_off")
	return m
}

func (m metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.streams, m.deliveries, m.refusals, m.refusedClaims, m.refusedIdentities, m.firstExpiry, m.refusedReports, m.paced, m.bounded, m.waiting, m.draining, m.asked, m.ended, m.refusedStopping, m.refusedBusy}
}
