// Package path measures what rules cost a packet on its way: real packets, through the real iptables rules, in
// network namespaces made for it. Ours are the rules and programs of the agent, put there by its own code; beside
// them stand the rules that a user would write otherwise, and each sends the same packets by turns.
package path

import (
	"github.com/nameward/nameward/bench/report"
	"github.com/nameward/nameward/dataplane/netfilter"
)

// extent is how much is measured.
type extent struct {
	rounds     int
	sets       []int // numbers of domain sets
	legacy     []int // of these with iptables-legacy
	workloads  []int
	backends   []string
	selections int // of processes
	bursts     int // of packets, in one sample
	asked      int // names
	questions  int // in one sample
}

func extentOf(config report.Config) extent {
	x := extent{
		rounds: 40, bursts: 24, asked: 3000, questions: 500, selections: 5,
		sets: []int{1, 10, 100, 1000, 10_000}, legacy: []int{1, 10_000}, workloads: []int{1, 10, 100, 1000, 10_000},
		backends: []string{netfilter.NFT, netfilter.Legacy},
	}
	if config.Fast {
		x.rounds, x.bursts, x.questions = 10, 8, 200
		x.sets, x.legacy, x.workloads = []int{1, 100, 10_000}, []int{1}, []int{1, 10_000}
	}
	return x
}

// Sections returns the works that this package measures.
func Sections() []report.Section {
	return []report.Section{
		{Name: "new-connections", Measure: measureNew},
		{Name: "established", Measure: measureEstablished},
		{Name: "workloads-in-path", Measure: measureWorkloads},
		{Name: "processes", Measure: measureProcesses},
		{Name: "dns-in-path", Measure: measureDNS},
		{Name: "stages-in-path", Measure: measureStages},
	}
}
