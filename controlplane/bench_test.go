package controlplane_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nameward/nameward/e2e/fleet"
)

// One change after the other among 10,000 policies, each to 1,000 nodes with a connection each: for profiles of server
// and nodes together. What the server alone takes, `make bench` says.
func BenchmarkChangeToAllNodes(b *testing.B) {
	const nodes, policies = 1000, 10000
	s := start(b, b.TempDir())
	var writers sync.WaitGroup
	for w := range 16 {
		writers.Go(func() {
			for i := w; i < policies; i += 16 {
				s.put(fmt.Sprintf("p%d", i), "", fmt.Sprintf("h%d.example.com", i))
			}
		})
	}
	writers.Wait()
	began := time.Now()
	f := fleet.New(fleet.Config{
		Server: s.connection.Target(), Nodes: nodes,
		Labels: func(node int) map[string]string { return map[string]string{"own": fmt.Sprint(node)} },
	})
	stop := f.Start(b.Context())
	await := func(revision uint64) {
		if err := f.Await(b.Context(), func(s fleet.State) bool { return s.Connected && s.Revision >= revision }); err != nil {
			b.Fatal(err)
		}
	}
	await(policies)
	b.ReportMetric(time.Since(began).Seconds(), "s/first-sync")
	for changes := 0; b.Loop(); changes++ {
		before := f.Agent(0).State().Revision
		s.put("p0", "", fmt.Sprintf("c%d.example.com", changes))
		await(before + 1)
	}
	if err := stop(); err != nil {
		b.Error(err)
	}
}
