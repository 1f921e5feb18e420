package controlplane_test

import (
	"context"
	"runtime"
	"testing"

	"github.com/nameward/nameward/e2e/fleet"
)

// held is what the process has in use when all garbage is gone, and stacks are as small as they get.
func held() (bytes uint64) {
	for range 4 {
		runtime.GC()
	}
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc + stats.StackInuse
}

// What a server holds of a node it holds thousands of times: here it is bounded, the simulated agent's part with it.
func TestANodeIsSmall(t *testing.T) {
	const (
		nodes = 300
		most  = 60 << 10
		// Of gRPC's one each that reads, writes and keeps alive, the one that serves the stream, and the agent's own.
		goroutines = 5
	)
	s := start(t, t.TempDir())
	s.put("a", "", "a.example.com")
	f := fleet.New(fleet.Config{Server: s.connection.Target(), Nodes: nodes, Labels: func(node int) map[string]string {
		return map[string]string{"role": "web"}
	}})
	before, running := held(), runtime.NumGoroutine()
	stop := f.Start(t.Context())
	defer func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := f.Await(ctx, func(s fleet.State) bool { return s.Connected && s.Revision > 0 }); err != nil {
		t.Fatal(err)
	}
	after := held()
	if each := (runtime.NumGoroutine() - running) / nodes; each > goroutines {
		t.Errorf("%d goroutines a node, want no more than %d", each, goroutines)
	}
	each := (after - before) / nodes
	t.Logf("%d bytes a node", each)
	if each > most {
		t.Errorf("%d bytes a node, want no more than %d", each, most)
	}
}
