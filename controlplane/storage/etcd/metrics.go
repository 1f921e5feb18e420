package etcd

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics measures the way of commits to the cluster.
type metrics struct {
	seconds, waited, commits            prometheus.Histogram
	failures, unknown, watches, reloads prometheus.Counter
}

func newMetrics() metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "nameward_server_storage_" + name, Help: help})
	}
	return metrics{
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "nameward_server_storage_write_seconds", Help: "Time that a group of commits took to disk, fsync included.",
			Buckets: prometheus.ExponentialBuckets(0.00025, 2, 14),
		}),
		waited: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "nameward_server_storage_commit_seconds", Help: "Time from the moment that a commit was asked for to the moment that it was durable, or refused.",
			Buckets: prometheus.ExponentialBuckets(0.00025, 2, 14),
		}),
		commits: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "nameward_server_storage_group_commits", Help: "Commits that shared a transaction.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 9),
		}),
		failures: counter("failures_total", "Groups of commits that could not be written: their callers were told so."),
		unknown:  counter("unknown_outcomes_total", "Commits of which the caller was told that their outcome is not known; with etcd alone."),
		watches:  counter("watch_restarts_total", "Times that the watch of etcd began anew; with etcd alone."),
		reloads:  counter("reloads_total", "Times that everything was loaded anew from etcd, because changes were lost; with etcd alone."),
	}
}

func (m metrics) written(began time.Time, commits int, err error) {
	m.seconds.Observe(time.Since(began).Seconds())
	m.commits.Observe(float64(commits))
	if err != nil {
		m.failures.Inc()
	}
}

// Collectors returns the metrics.
func (b *Backend) Collectors() []prometheus.Collector {
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "nameward_server_storage_" + name, Help: help}, value)
	}
	return []prometheus.Collector{
		b.metrics.seconds, b.metrics.waited, b.metrics.commits, b.metrics.failures, b.metrics.unknown, b.metrics.watches, b.metrics.reloads,
		gauge("waiting_commits", "Commits that wait for their turn.", func() float64 {
			b.mu.Lock()
			defer b.mu.Unlock()
			return float64(len(b.pending))
		}),
		gauge("stale_seconds", "Time for which the server has not known that it is up to date; with etcd alone.", func() float64 { return b.Stale().Seconds() }),
		gauge("unfolded_commits", "Large commits that are in force and not folded into the objects yet; with etcd alone.", func() float64 {
			b.mu.Lock()
			defer b.mu.Unlock()
			return float64(len(b.entries))
		}),
	}
}
