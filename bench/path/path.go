// Package path measures what rules cost a packet on its way: real packets, through the real iptables rules, in
// network namespaces made for it. Ours are the rules and programs of the agent, put there by its own code; beside
// them stand the rules that a user would write otherwise, and each sends the same packets by turns.
package path

import (
	"github.com/nameward/nameward/bench/report"
)

// extent is how much is measured.
type extent struct {
	rounds    int
	sets      []int // numbers of domain sets
	workloads []int
	bursts    int // of packets, in one sample
	questions int // in one sample
}

func extentOf(config report.Config) extent {
	if config.Fast {
		return extent{rounds: 10, sets: []int{1, 100, 10_000}, workloads: []int{1, 10_000}, bursts: 8, questions: 200}
	}
	return extent{
		rounds: 30, sets: []int{1, 10, 100, 1000, 10_000}, workloads: []int{1, 10, 100, 1000, 10_000},
		bursts: 24, questions: 500,
	}
}

// Sections returns the works that this package measures.
func Sections() []report.Section {
	return []report.Section{
		{Name: "new-connections", Measure: measureNew},
		{Name: "established", Measure: measureEstablished},
		{Name: "workloads-in-path", Measure: measureWorkloads},
		{Name: "processes", Measure: measureProcesses},
		{Name: "dns-in-path", Measure: measureDNS},
	}
}
