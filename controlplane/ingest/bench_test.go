package ingest_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/nameward/nameward/api/flow"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/controlplane/ingest"
)

const (
	fleetNodes = 5_000
	// fleetBatch is how many an agent sends at once.
	fleetBatch = 500
)

// fleetMappings is how many live in the fleet of the benchmarks.
var fleetMappings = flag.Int("fleet-mappings", 5_000_000, "mappings in the benchmarks")

// fleetMapping is the i-th mapping of the fleet: names of a few thousand services, each of which some nodes know, half
// of them by an alias that a provider shares among many names.
func fleetMapping(i int, ends time.Time) *namewardv1.Mapping {
	name, owner := i/3, i%fleetNodes
	m := &namewardv1.Mapping{
		Domain:        fmt.Sprintf("host-%d.service-%d.example-%d.com", name, name%5000, name%100),
		Address:       netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}).String(),
		Client:        netip.AddrFrom4([4]byte{172, 16, byte(owner >> 8), byte(owner)}).String(),
		FirstSeenTime: timestamppb.New(start), LastSeenTime: timestamppb.New(start), ExpireTime: timestamppb.New(ends),
	}
	if name%2 == 0 {
		m.Chain = []string{fmt.Sprintf("edge-%d.cdn.example.net", name%200_000)}
	}
	return m
}

// report is a batch of a node, as it comes from the wire and is taken in.
func report(b testing.TB, table *ingest.Table, from node.ID, messages []*namewardv1.Mapping) {
	batch := ingest.Batch{Mappings: make([]*ingest.Mapping, 0, len(messages))}
	for _, message := range messages {
		m, err := ingest.FromProto(from, message)
		if err != nil {
			b.Fatal(err)
		}
		batch.Mappings = append(batch.Mappings, m)
	}
	table.Observe(from, batch, start)
}

// fleetBatches calls send with batch after batch of mappings, all of a batch of one node.
func fleetBatches(b testing.TB, first, count int, ends time.Time, send func(from node.ID, messages []*namewardv1.Mapping)) {
	perNode := *fleetMappings / fleetNodes
	for at := first; at < first+count; {
		of := at / perNode % fleetNodes
		var messages []*namewardv1.Mapping
		for len(messages) < fleetBatch && at < first+count && at/perNode%fleetNodes == of {
			// A bijection that scatters the names of a node over the whole fleet.
			messages = append(messages, fleetMapping(at*7919%*fleetMappings, ends))
			at++
		}
		send(nodeID(b, fmt.Sprintf("node-%d", of)), messages)
	}
}

type fleet struct {
	table   *ingest.Table
	filling time.Duration
	bytes   uint64
}

// filled is a table with all mappings of the fleet, made once.
var filled = sync.OnceValue(func() *fleet {
	b := &testing.B{}
	before := heap()
	f := &fleet{table: ingest.New(2 * *fleetMappings)}
	fleetBatches(b, 0, *fleetMappings, start.Add(time.Hour), func(from node.ID, messages []*namewardv1.Mapping) {
		began := time.Now()
		report(b, f.table, from, messages)
		f.filling += time.Since(began)
	})
	f.bytes = heap() - before
	return f
})

func heap() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

// Mappings that no node reported before, up to five million, from the wire into the table.
func BenchmarkIngestNew(b *testing.B) {
	f := filled()
	for b.Loop() {
	}
	if got := f.table.Stats().Mappings; got != *fleetMappings {
		b.Errorf("%d mappings are in the table, want %d", got, *fleetMappings)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(*fleetMappings)/f.filling.Seconds(), "mappings/s")
	b.ReportMetric(float64(f.bytes)/float64(*fleetMappings), "B/mapping")
}

// Mappings among five million that are prolonged, while somebody reads.
func BenchmarkIngestProlong(b *testing.B) {
	f := filled()
	var done atomic.Bool
	var readers sync.WaitGroup
	readers.Go(func() {
		for !done.Load() {
			f.table.List(filter(b, "*.cdn.example.net", "", ""), ingest.Cursor{}, 100, start)
			time.Sleep(10 * time.Millisecond)
		}
	})
	taken, at, busy := 0, 0, time.Duration(0)
	for round := 1; b.Loop(); round++ {
		fleetBatches(b, at, fleetBatch*10, start.Add(time.Hour+time.Duration(round)*time.Second), func(from node.ID, messages []*namewardv1.Mapping) {
			began := time.Now()
			report(b, f.table, from, messages)
			busy += time.Since(began)
			taken += len(messages)
		})
		at = (at + fleetBatch*10) % *fleetMappings
	}
	done.Store(true)
	readers.Wait()
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(taken)/busy.Seconds(), "mappings/s")
}

// fill puts the words of the query's name, and what else is drawn, into its text.
func fill(text string, name int) string {
	return strings.NewReplacer(
		"HOST", fmt.Sprint(name), "SERVICE", fmt.Sprint(name%5000), "COMPANY", fmt.Sprint(name%100), "EDGE", fmt.Sprint(name%200_000&^1),
		"NETWORK", fmt.Sprint(rand.IntN(76)), "NODE", fmt.Sprint(rand.IntN(fleetNodes)),
	).Replace(text)
}

// A page of 100 mappings among five million, while mappings are prolonged.
func BenchmarkQuery(b *testing.B) {
	f := filled()
	for _, query := range []struct{ name, domain, address, node string }{
		{"name", "host-HOST.service-SERVICE.example-COMPANY.com", "", ""},
		{"all below a service", "*.service-SERVICE.example-COMPANY.com", "", ""},
		{"all below a company", "*.example-COMPANY.com", "", ""},
		{"an alias that many share", "edge-EDGE.cdn.example.net", "", ""},
		{"all aliases of a provider", "*.cdn.example.net", "", ""},
		{"a pattern within a label", "host-7*.service-SERVICE.example-COMPANY.com", "", ""},
		{"a top-level domain", "*.com", "", ""},
		{"address", "", "10.NETWORK.1.2", ""},
		{"a network of 256", "", "10.NETWORK.1.0/24", ""},
		{"a network of 65,536", "", "10.NETWORK.0.0/16", ""},
		{"all addresses", "", "10.0.0.0/8", ""},
		{"node", "", "", "nodes/node-NODE"},
		{"name on a node that has none of it", "*.example-COMPANY.com", "", "nodes/none"},
		{"name within a network", "*.example-COMPANY.com", "10.NETWORK.0.0/16", ""},
		{"first page of all", "", "", ""},
	} {
		b.Run(query.name, func(b *testing.B) {
			var done atomic.Bool
			var writers sync.WaitGroup
			writers.Go(func() {
				for at := 0; !done.Load(); at = (at + fleetBatch) % *fleetMappings {
					fleetBatches(b, at, fleetBatch, start.Add(2*time.Hour), func(from node.ID, messages []*namewardv1.Mapping) {
						report(b, f.table, from, messages)
					})
					time.Sleep(10 * time.Millisecond) // 50,000 a second
				}
			})
			var worst time.Duration
			found := 0
			for b.Loop() {
				name := rand.IntN(*fleetMappings / 3)
				domain, address, of := fill(query.domain, name), fill(query.address, name), fill(query.node, name)
				began := time.Now()
				page := f.table.List(filter(b, domain, address, of), ingest.Cursor{}, 100, start)
				worst = max(worst, time.Since(began))
				found += len(page.Mappings)
			}
			done.Store(true)
			writers.Wait()
			b.ReportMetric(float64(worst.Microseconds())/1000, "ms/worst")
			b.ReportMetric(float64(found)/float64(b.N), "found/op")
		})
	}
}

// Flow events that are seen again, of a store that is full, while somebody lists what he does not find.
func BenchmarkFlowsWhileListed(b *testing.B) {
	const events, batch = 262_144, 100
	flows := ingest.NewFlows(events)
	var all []*flow.Event
	for i := range events {
		text := fmt.Sprintf("10.1.0.7 10.%d.%d.%d 443 p%d host-%d.example-%d.com", i>>16, i>>8&255, i&255, i%9, i, i%100)
		all = append(all, flowEvent(b, text, 1, start, start))
	}
	of := func(i int) node.ID { return nodeID(b, fmt.Sprintf("node-%d", i/batch)) }
	for at := 0; at < events; at += batch {
		flows.Observe(of(at), all[at:min(at+batch, events)], start)
	}
	unfound := flowFilter(b, &namewardv1.FlowEventFilter{Domain: "*.com", Workload: "10.2.0.0/16"})
	var done atomic.Bool
	var readers sync.WaitGroup
	lists := 0
	readers.Go(func() {
		for ; !done.Load(); lists++ {
			flows.List(unfound, flow.Position{}, 100)
		}
	})
	var took []time.Duration
	at := 0
	for round := uint64(2); b.Loop(); round++ {
		again := make([]*flow.Event, 0, batch)
		for _, e := range all[at:min(at+batch, events)] {
			seen := *e
			seen.Count, seen.LastSeen = round, start.Add(time.Duration(round)*time.Millisecond)
			again = append(again, &seen)
		}
		began := time.Now()
		flows.Observe(of(at), again, start.Add(time.Hour))
		took = append(took, time.Since(began))
		at = (at + batch) % (events - batch)
	}
	done.Store(true)
	readers.Wait()
	slices.Sort(took)
	for name, part := range map[string]int{"µs/median": 50, "µs/p99": 99} {
		b.ReportMetric(float64(took[(len(took)-1)*part/100].Nanoseconds())/1000, name)
	}
	b.ReportMetric(float64(took[len(took)-1].Nanoseconds())/1000, "µs/worst")
	b.ReportMetric(float64(lists)/b.Elapsed().Seconds(), "lists/s")
}
