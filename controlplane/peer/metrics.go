package peer

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	reachable, unreachable prometheus.GaugeFunc
	received, broken       prometheus.Counter
}

func newMetrics(p *Peers) metrics {
	count := func(reachable bool) float64 {
		p.mu.Lock()
		defer p.mu.Unlock()
		n := 0
		for _, l := range p.links {
			if l.reachable(time.Now()) == reachable {
				n++
			}
		}
		return float64(n)
	}
	return metrics{
		reachable: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "nameward_server_peers_reachable", Help: "Other policy servers on the same etcd of whose nodes all is known.",
		}, func() float64 { return count(true) }),
		unreachable: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "nameward_server_peers_unreachable", Help: "Other policy servers on the same etcd that cannot be reached: what is known of their nodes may be old, and answers say so.",
		}, func() float64 { return count(false) }),
		received: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "nameward_server_peer_messages_total", Help: "Messages that came from other policy servers.",
		}),
		broken: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "nameward_server_peer_streams_broken_total", Help: "Streams from other policy servers that broke, or could not be opened.",
		}),
	}
}

func (m metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.reachable, m.unreachable, m.received, m.broken}
}
