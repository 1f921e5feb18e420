// Package program measures the BPF programs alone, without a network: the kernel runs each on one packet many
// times (hot), or on many different packets once (varied), by turns with what stands beside it.
package program

import "github.com/nameward/nameward/bench/report"

// Sections is what is measured here.
func Sections() []report.Section { return nil }
