package controlplane_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// One change at a quiet rate among 10,000 policies, to 1,000 nodes with a connection each: the time until
// each has it.
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
	began := time.Now()
	writers.Wait()
	b.Logf("wrote %d policies in %v", policies, time.Since(began))
	agents := make([]*agent, nodes)
	began = time.Now()
	for i := range agents {
		connection, err := grpc.NewClient(s.connection.Target(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			b.Fatal(err)
		}
		defer connection.Close()
		agents[i] = newAgent(b, fmt.Sprintf("n%d", i), map[string]string{"own": fmt.Sprint(i)})
		agents[i].connect(connection)
		defer agents[i].leave()
	}
	for _, a := range agents {
		for !a.next().GetComplete() {
		}
	}
	b.ReportMetric(time.Since(began).Seconds(), "s/first-sync")

	var delays []time.Duration
	for changes := 0; b.Loop(); changes++ {
		began := time.Now()
		s.put("p0", "", fmt.Sprintf("c%d.example.com", changes))
		committed := time.Now()
		for _, a := range agents {
			for !a.next().GetComplete() {
			}
			delays = append(delays, time.Since(committed))
		}
		b.ReportMetric(committed.Sub(began).Seconds()*1000, "ms/commit")
	}
	slices.Sort(delays)
	b.ReportMetric(float64(delays[len(delays)/2].Microseconds())/1000, "ms/p50")
	b.ReportMetric(float64(delays[len(delays)*99/100].Microseconds())/1000, "ms/p99")
}
