// Package program measures the BPF programs alone, without a network. The tables are those that an agent
// makes of a rule set; the kernel then runs a program on one packet many times (hot), or once on each of
// many different packets (varied), by turns with what stands beside it.
package program

import "github.com/nameward/nameward/bench/report"

// Sections is what is measured here.
func Sections() []report.Section {
	return []report.Section{
		{Name: "program-response", Measure: measureResponses},
		{Name: "program-names", Measure: measureNames},
		{Name: "program-addresses", Measure: measureAddresses},
		{Name: "program-sets", Measure: measureSets},
		{Name: "program-workloads", Measure: measureWorkloads},
		{Name: "program-kernel", Measure: measureKernel},
	}
}

// sizes gives the sizes of a full run, or the shorter list of a fast one.
func sizes(config report.Config, full, fast []int) []int {
	if config.Fast {
		return fast
	}
	return full
}
