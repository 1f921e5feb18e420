package bpf_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
)

// BenchmarkSources judges a connection among workloads that are told apart by source CIDR, as many as a node
// may have: each a class and a workload of its own.
func BenchmarkSources(b *testing.B) {
	for _, sources := range []int{0, 1000, 30_000} {
		b.Run(fmt.Sprintf("%d more sources", sources), func(b *testing.B) {
			g := newGate(b, enforced)
			hot := newHot(b, g.Datapath)
			for i := range sources {
				class := uint32(workloadClass + 1 + i)
				g.prefix(g.Sources, fmt.Sprintf("10.%d.%d.0/24", 100+i>>8, i&255), class)
				g.Put(g.Workloads, bpf.DatapathWorkloadKey{Source: class}, bpf.DatapathWorkload{Id: class, Flags: enforced})
			}
			g.rules(component(bpf.DatapathComponentCOMPONENT_MATCH_SET, 1), every(0, 0))
			g.Remap(remapEntry(known, 1, bpftest.Ticks(bpftest.Now(b)+time.Hour)))
			measure(b, g.EgressForwarded, hot.Empty, connect(bpftest.TCP, "192.0.2.1:443"))
		})
	}
}
