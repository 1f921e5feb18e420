package ingest

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/nameward/nameward/api/flow"
	"github.com/nameward/nameward/api/node"
)

// Who wants to write while a list looks at many events waits for a part of them, not for all.
func TestFlowListsLetOthersWrite(t *testing.T) {
	id, err := node.ParseID("n")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	event := func(i int) *flow.Event {
		return &flow.Event{Key: flow.Key{
			Reason: flow.NoRule, Workload: flow.Workload{Address: netip.MustParseAddr("10.1.0.7")},
			Destination: flow.Destination{Address: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), Port: 443, Protocol: 6},
		}, Count: 1, FirstSeen: now, LastSeen: now}
	}
	const events = 3 * flowScanAtOnce
	flows := NewFlows(1_000_000)
	var all []*flow.Event
	for i := range events {
		all = append(all, event(i))
	}
	flows.Observe(id, all, now)
	written := make(chan struct{})
	looked := 0
	offer(flows, &flows.byPosition, flowAt(flow.Position{}), func(*flowEntry) bool {
		looked++
		switch looked {
		case 1:
			go func() {
				flows.Observe(id, []*flow.Event{event(events)}, now)
				close(written)
			}()
			// A writer that waits keeps other readers out.
			for flows.mu.TryRLock() {
				flows.mu.RUnlock()
				runtime.Gosched()
			}
		case flowScanAtOnce + 1:
			if flows.byPosition.length != events+1 {
				t.Error("a writer waits for more than a part of a list")
			}
		}
		return true
	})
	<-written
	if looked != events+1 {
		t.Errorf("looked at %d events, want %d", looked, events+1)
	}
	if got := fmt.Sprint(len(flows.Watch(flow.Filter{}).Known)); got != fmt.Sprint(events+1) {
		t.Errorf("a watch begins with %s events", got)
	}
}
