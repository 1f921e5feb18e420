package bolt

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics measures the way of commits to disk.
type metrics struct {
	seconds, waited, commits prometheus.Histogram
	failures                 prometheus.Counter
}

func newMetrics() metrics {
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
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "nameward_server_storage_failures_total", Help: "Groups of commits that could not be written: their callers were told so.",
		}),
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
	return []prometheus.Collector{
		b.metrics.seconds, b.metrics.waited, b.metrics.commits, b.metrics.failures,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "nameward_server_storage_waiting_commits", Help: "Commits that wait for their turn.",
		}, func() float64 {
			b.mu.Lock()
			defer b.mu.Unlock()
			return float64(len(b.pending))
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "nameward_server_storage_bytes", Help: "Size of the database file.",
		}, func() float64 { return float64(b.size.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "nameward_server_storage_free_bytes", Help: "Of the database file, what is free for what is written next.",
		}, func() float64 { return float64(b.db.Stats().FreeAlloc) }),
	}
}
