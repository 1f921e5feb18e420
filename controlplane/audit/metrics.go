package audit

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	events, refused, unfinished, lost, settled prometheus.Counter
	seconds                                    prometheus.Histogram
}

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "nameward_server_audit_" + name, Help: help})
	}
	return &metrics{
		events:     counter("events_total", "Events put into the audit log."),
		refused:    counter("changes_refused_total", "Changes that were refused because the audit log could not be written."),
		unfinished: counter("outcomes_lost_total", "Changes whose outcome could not be written into the audit log; that they were to be made is in it."),
		lost:       counter("denials_lost_total", "Denied calls that could not be written into the audit log."),
		settled:    counter("settled_total", "Events whose outcome was missing at the start, after a crash."),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "nameward_server_audit_write_seconds", Help: "Time until a change was in the audit log, on disk.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9),
		}),
	}
}

// Collectors returns the metrics.
func (l *Log) Collectors() []prometheus.Collector {
	m := l.metrics
	return []prometheus.Collector{m.events, m.refused, m.unfinished, m.lost, m.settled, m.seconds}
}
