package bpf_test

import (
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

const (
	rounds  = 31   // of which the median counts
	repeats = 2000 // of one packet in a round
)

// measure runs a program and an empty one by turns, and reports the medians' difference and ratio. The bench
// measures what is promised; this is for what only who changes it wants to know.
func measure(b *testing.B, program *ebpf.Program, packet []byte) {
	b.Helper()
	empty := emptyProgram(b)
	var ours, theirs []time.Duration
	for b.Loop() {
		ours, theirs = ours[:0], theirs[:0]
		for range rounds {
			ours = append(ours, run(b, program, packet))
			theirs = append(theirs, run(b, empty, packet))
		}
	}
	slices.Sort(ours)
	slices.Sort(theirs)
	median, base := ours[rounds/2], theirs[rounds/2]
	b.ReportMetric(float64((median - base).Nanoseconds()), "ns/packet")
	b.ReportMetric(float64(median)/float64(max(base, 1)), "x-baseline")
	b.ReportMetric(0, "ns/op") // of all rounds together: it says nothing
}

func emptyProgram(b *testing.B) *ebpf.Program {
	b.Helper()
	empty, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SocketFilter, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		b.Fatalf("load the empty program: %v", err)
	}
	b.Cleanup(func() { _ = empty.Close() })
	return empty
}

func run(b *testing.B, program *ebpf.Program, packet []byte) time.Duration {
	b.Helper()
	_, duration, err := program.Benchmark(packet, repeats, func() {})
	if err != nil {
		b.Fatalf("run %v: %v", program, err)
	}
	return duration
}
