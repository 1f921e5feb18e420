package e2e_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/e2e/lab"
)

// scripted is where the tests of this file run a server of their own.
var scripted = netip.MustParseAddr("10.91.2.8")

// serviceAddress is the i-th address that a scripted server may give.
func serviceAddress(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 18, 220, byte(i)}) }

// awaitRefused waits until a connection is refused: the agent has to hear first.
func (f *fleet) awaitRefused(t *testing.T, address netip.Addr) {
	t.Helper()
	if err := lab.Await(t.Context(), func() error {
		if err := f.Connect(address, lab.ServicePort); !lab.Refused(err) {
			return fmt.Errorf("connect to %s: got %w, want refused", address, errors.Join(err, errors.New("open")))
		}
		return nil
	}, nil); err != nil {
		t.Error(err)
	}
}

// TestAddressesPerName: over the limit the oldest address of a name stops being open and is counted, unless
// another name has it too; the newest is open at once. While the agent is away nothing is shut; when it is
// back, it is.
func TestAddressesPerName(t *testing.T) {
	const limit = 4
	f := newFleet(t, "--trusted-resolver", scripted.String(), "--max-addresses-per-name", fmt.Sprint(limit))
	var turn atomic.Int32
	f.must(f.StartAnswering(t.Context(), scripted, func(name string) []netip.Addr {
		if strings.HasPrefix(name, "shared.") {
			return []netip.Addr{serviceAddress(1)}
		}
		return []netip.Addr{serviceAddress(int(turn.Add(1)))}
	}))
	f.put(clientPolicy("*.scripted.example"))
	open := func(from, to int) {
		t.Helper()
		for i := from; i <= to; i++ {
			if err := f.Connect(serviceAddress(i), lab.ServicePort); err != nil {
				t.Errorf("connect to address %d: %v", i, err)
			}
		}
	}
	f.expectOpen(t, scripted, "shared.scripted.example")
	for range 10 {
		f.expectOpen(t, scripted, "cdn.scripted.example")
	}
	for i := 2; i <= 10-limit; i++ {
		f.awaitRefused(t, serviceAddress(i))
	}
	open(1, 1)
	open(11-limit, 10)
	f.counters(func(c map[string]uint64) bool { return c["addresses_evicted"] == 10-limit })
	// The server hears that what was shut is no mapping any more.
	if err := lab.Await(t.Context(), func() error {
		if known := f.awaitMapping("cdn.scripted.example"); len(known) != limit {
			return fmt.Errorf("%d mappings upstream, want %d", len(known), limit)
		}
		return nil
	}, nil); err != nil {
		t.Error(err)
	}

	f.must(f.agent.Kill())
	for range 10 {
		f.expectOpen(t, scripted, "cdn.scripted.example")
	}
	open(11-limit, 20)
	f.startAgent()
	for i := 11 - limit; i <= 20-limit; i++ {
		f.awaitRefused(t, serviceAddress(i))
	}
	open(1, 1)
	open(21-limit, 20)
	f.counters(func(c map[string]uint64) bool { return c["addresses_evicted"] == 10 })
}

// TestQuestionFlood: a client that asks without end pushes out its own questions, counted, and not that of
// another, whose answer comes after the flood.
func TestQuestionFlood(t *testing.T) {
	f := newFleet(t, "--trusted-resolver", scripted.String(), "--max-queries", "256")
	asked, answer := make(chan struct{}), make(chan struct{})
	f.must(f.StartAnswering(t.Context(), scripted, func(name string) []netip.Addr {
		if !strings.HasPrefix(name, "slow.") {
			return nil
		}
		close(asked)
		<-answer
		return []netip.Addr{serviceAddress(1)}
	}))
	policy := clientPolicy("*.scripted.example")
	policy.Workloads = append(policy.Workloads, &namewardv1.Workload{Host: true})
	f.put(policy)
	resolved := make(chan error, 1)
	go func() {
		_, err := f.Node.Resolve(scripted, "slow.scripted.example")
		resolved <- err
	}()
	<-asked
	const questions = 10_000
	f.must(f.Client.FloodQuestions(scripted, "flood.scripted.example", questions))
	close(answer)
	f.must(<-resolved)
	if err := f.Node.Connect(serviceAddress(1), lab.ServicePort); err != nil {
		t.Errorf("connect after the answer: %v", err)
	}
	f.counters(func(c map[string]uint64) bool {
		return c["dns_queries_remembered"] == questions+1 && c["dns_queries_evicted"] > questions/2 && c["dns_responses_learned"] >= 1
	})
}

// TestMappingFlood: more live mappings than there is room for push out older ones, which is counted and
// visible upstream; each new one is open at once.
func TestMappingFlood(t *testing.T) {
	f := newFleet(t, "--max-mappings", "64")
	f.put(clientPolicy("*.fresh.example"))
	const names = 1500
	for i := range names {
		if i%100 == 0 {
			f.expectOpen(t, lab.ResolverV4, lab.FreshName(i))
			continue
		}
		if _, err := f.Resolve(lab.ResolverV4, lab.FreshName(i)); err != nil {
			t.Fatal(err)
		}
	}
	f.expectOpen(t, lab.ResolverV4, lab.FreshName(names))
	f.countersUpstream(func(c map[string]uint64) bool { return c["mappings_evicted"] > 0 && c["mappings_created"] > names })
}

// TestRemovedPatterns: patterns that are removed one after the other take no room: what other names of
// the rule opened stays open, and nothing gives way.
func TestRemovedPatterns(t *testing.T) {
	f := newFleet(t)
	patterns := []string{"api.example"}
	for i := range 70 {
		patterns = append(patterns, fmt.Sprintf("n%d.other.example", i))
	}
	f.put(clientPolicy(patterns...))
	f.expectOpen(t, lab.ResolverV4, "api.example")
	before := f.opened(t, "api.example")[:1]
	for len(patterns) > 1 {
		patterns = patterns[:len(patterns)-1]
		f.put(clientPolicy(patterns...))
	}
	f.expectStillOpen(t, before)
	counters := f.counters(func(map[string]uint64) bool { return true })
	if full, evicted := counters["mappings_full"], counters["mapping_slots_evicted"]; full+evicted != 0 {
		t.Errorf("%d found no place, %d gave way", full, evicted)
	}
}
