package controlplane

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/controlplane/store"
)

// holdings says at each scrape what the store holds.
type holdings struct {
	store                             *store.Store
	policies, sets, domains, ofStates *prometheus.Desc
}

func newHoldings(s *store.Store) *holdings {
	describe := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("nameward_server_"+name, help, labels, nil)
	}
	return &holdings{
		store:    s,
		policies: describe("policies", "Policies, disabled ones too."),
		sets:     describe("domain_sets", "Domain sets."),
		domains:  describe("domain_set_domains", "Domain patterns of all domain sets."),
		ofStates: describe("nodes", "Nodes that have ever connected, by how they do: failed, disconnected, behind, degraded or current.", "state"),
	}
}

// Describe is of prometheus.Collector.
func (h *holdings) Describe(out chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{h.policies, h.sets, h.domains, h.ofStates} {
		out <- desc
	}
}

// Collect is of prometheus.Collector.
func (h *holdings) Collect(out chan<- prometheus.Metric) {
	send := func(desc *prometheus.Desc, value int, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(value), labels...)
	}
	snapshot, _, _ := h.store.Snapshot()
	domains := 0
	for _, set := range snapshot.DomainSets {
		domains += len(set.Domains)
	}
	send(h.policies, len(snapshot.Policies))
	send(h.sets, len(snapshot.DomainSets))
	send(h.domains, domains)
	nodes, _ := h.store.Nodes()
	counts := map[namewardv1.NodeStatus_State]int{}
	for _, n := range nodes {
		counts[n.State()]++
	}
	for number, name := range namewardv1.NodeStatus_State_name {
		if number != 0 {
			send(h.ofStates, counts[namewardv1.NodeStatus_State(number)], strings.ToLower(name))
		}
	}
}
