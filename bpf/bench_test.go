package bpf_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/miekg/dns"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
)

//go:generate go tool bpf2go -go-package bpf_test -target bpfel -cc clang-14 -strip llvm-strip-14 -no-global-types hot hot.bpf.c -- -O2 -g -Wall -Wextra -Werror -mcpu=v3 -idirafter /usr/include/x86_64-linux-gnu

const (
	rounds  = 31   // of which the median counts
	repeats = 2000 // of one packet in a round
)

// newHot loads the programs for benchmarks upon the maps of a datapath.
func newHot(b *testing.B, d *bpftest.Datapath) *hotPrograms {
	b.Helper()
	spec, err := loadHot()
	if err != nil {
		b.Fatalf("read the collection: %v", err)
	}
	shared := map[string]*ebpf.Map{
		bpf.DatapathMapSettings: d.DatapathMaps.Settings, bpf.DatapathMapState: d.State,
		bpf.DatapathMapNameIndex: d.NameIndex, bpf.DatapathMapNameCells: d.NameCells,
		bpf.DatapathMapGenerations: d.Generations, bpf.DatapathMapPatterns: d.Patterns,
		bpf.DatapathMapMappings: d.Mappings, bpf.DatapathMapQuestions: d.Questions, bpf.DatapathMapLimits: d.Limits,
		bpf.DatapathMapAnswers: d.DatapathMaps.Answers, bpf.DatapathMapCounters: d.Counters,
		bpf.DatapathMapEvents: d.Events, bpf.DatapathMapScratch: d.Scratch,
	}
	for name, m := range spec.Maps {
		m.Pinning = ebpf.PinNone
		if with := shared[name]; with != nil {
			m.MaxEntries = with.MaxEntries()
		}
	}
	programs := new(hotPrograms)
	if err := spec.LoadAndAssign(programs, &ebpf.CollectionOptions{MapReplacements: shared}); err != nil {
		b.Fatalf("load the collection: %+v", err)
	}
	b.Cleanup(func() { _ = programs.Close() })
	return programs
}

// measure runs a program and its baseline by turns, and reports the medians' difference and ratio.
func measure(b *testing.B, program, baseline *ebpf.Program, packet []byte) {
	b.Helper()
	var ours, theirs []time.Duration
	for b.Loop() {
		ours, theirs = ours[:0], theirs[:0]
		for range rounds {
			ours = append(ours, run(b, program, packet))
			theirs = append(theirs, run(b, baseline, packet))
		}
	}
	slices.Sort(ours)
	slices.Sort(theirs)
	median, base := ours[rounds/2], theirs[rounds/2]
	b.ReportMetric(float64((median - base).Nanoseconds()), "ns/packet")
	b.ReportMetric(float64(median)/float64(max(base, 1)), "x-baseline")
	b.ReportMetric(0, "ns/op") // of all rounds together: it says nothing
}

func run(b *testing.B, program *ebpf.Program, packet []byte) time.Duration {
	b.Helper()
	_, duration, err := program.Benchmark(packet, repeats, func() {})
	if err != nil {
		b.Fatalf("run %v: %v", program, err)
	}
	return duration
}

func BenchmarkResponse(b *testing.B) {
	thirty := make([]string, 0, 30)
	for i := range 30 {
		thirty = append(thirty, fmt.Sprintf("api.example.com. 60 IN A 192.0.2.%d", i+1))
	}
	unmatched := []string{"www.unmentioned.test. 60 IN A 192.0.2.1"}
	for _, test := range []struct {
		fact, name string
		records    []string
		general    int // patterns that every name is held against
	}{
		{"one A record", "api.example.com", []string{answerA}, 0},
		{"one A record, 8 general patterns", "api.example.com", []string{answerA}, 8},
		{"30 A records", "api.example.com", thirty, 0},
		{"a chain", "api.example.com", []string{"api.example.com. 60 IN CNAME x.cdn.test.", "x.cdn.test. 60 IN A 192.0.2.1"}, 0},
		{"unmatched", "www.unmentioned.test", unmatched, 0},
		{"unmatched, 8 general patterns", "www.unmentioned.test", unmatched, 8},
		{"unmatched, 64 general patterns", "www.unmentioned.test", unmatched, 64},
	} {
		b.Run(test.fact, func(b *testing.B) {
			e := newExchange(b)
			e.generalPatterns(test.general)
			hot := newHot(b, e.Datapath)
			answer := pack(b, reply(b, e.ask(test.name, dns.TypeA), test.records...))
			measure(b, hot.HotResponse, hot.HotNothing, bpftest.Datagram(e.resolver, e.client, answer))
		})
	}
}

func BenchmarkQuery(b *testing.B) {
	e := newExchange(b)
	hot := newHot(b, e.Datapath)
	query := pack(b, new(dns.Msg).SetQuestion("api.example.com.", dns.TypeA))
	measure(b, e.DnsQueryForwarded, hot.Empty, bpftest.Datagram(e.client, e.resolver, query))
}

func BenchmarkVerdict(b *testing.B) {
	for _, sets := range []uint32{1, 10_000} {
		b.Run(fmt.Sprintf("%d domain sets", sets), func(b *testing.B) {
			g := newGate(b, enforced)
			hot := newHot(b, g.Datapath)
			for set := range sets {
				g.rules(component(bpf.DatapathComponentCOMPONENT_MATCH_SET, set+1), every(set, 0))
			}
			expires := bpftest.Ticks(bpftest.Now(b) + time.Hour)
			g.Remap(remapEntry(known, sets, expires))
			measure(b, g.EgressForwarded, hot.Empty, connect(bpftest.TCP, "192.0.2.1:443"))
		})
	}
}
