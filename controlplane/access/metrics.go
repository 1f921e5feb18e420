package access

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	denied  *prometheus.CounterVec
	untold  prometheus.Counter
	limited *prometheus.CounterVec
	paced   *prometheus.CounterVec
	running *prometheus.GaugeVec
	// connections counts those over what one caller may have.
	connections prometheus.Counter
	roleFault   prometheus.GaugeFunc
	reloads     prometheus.CounterFunc
	faults      prometheus.CounterFunc
}

func newMetrics(roles *Roles) *metrics {
	return &metrics{
		denied: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nameward_server_calls_denied_total",
			Help: "Calls that their caller may not make, by the kind of method (read, watch, change, sync, probe; unlisted: no such method; unknown: a certificate that names nobody) and the caller's role.",
		}, []string{"methods", "role"}),
		untold: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "nameward_server_calls_denied_untold_total", Help: "Denied calls that are in the log and the audit log only as a number, or not yet.",
		}),
		limited: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nameward_server_calls_limited_total", Help: "Calls refused because their caller had too many running, by kind of method.",
		}, []string{"methods"}),
		paced: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nameward_server_calls_paced_total", Help: "Calls that waited because their caller calls too often, by kind of method.",
		}, []string{"methods"}),
		running: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "nameward_server_calls_running", Help: "Calls of callers with a certificate that have not ended, by kind of method.",
		}, []string{"methods"}),
		connections: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "nameward_server_caller_connections_refused_total", Help: "Connections closed because the holder of their certificate had too many.",
		}),
		roleFault: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "nameward_server_roles_faulty", Help: "1 while the roles file cannot be used and the last good one is in force.",
		}, func() float64 {
			if roles.faulty.Load() {
				return 1
			}
			return 0
		}),
		reloads: prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "nameward_server_roles_read_total", Help: "Times that a changed roles file was taken over.",
		}, func() float64 { return float64(roles.reloads.Load()) }),
		faults: prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "nameward_server_roles_faults_total", Help: "Faults of the roles file that were met.",
		}, func() float64 { return float64(roles.faults.Load()) }),
	}
}

// Collectors returns the metrics.
func (g *Guard) Collectors() []prometheus.Collector {
	m := g.metrics
	return []prometheus.Collector{m.denied, m.untold, m.limited, m.paced, m.running, m.connections, m.roleFault, m.reloads, m.faults}
}
