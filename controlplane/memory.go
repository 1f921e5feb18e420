package controlplane

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// garbageShare is how much garbage may lie about, in percent of what is in use. Go's own share, 100, would have a server
// keep as much room as it needs for all of its policies and nodes.
const garbageShare = 75

const (
	// spareInterval is how often a server looks whether it has memory to give back, giveBackInterval how often at most it
	// does: that costs a collection, and what is needed again has to be fetched again.
	spareInterval, giveBackInterval = 5 * time.Second, time.Minute
	// leastSpare is what is worth a collection.
	leastSpare = 16 << 20
	// quietPart is the part of what is spare that a server in which little happens allocates in spareInterval at most.
	quietPart = 4
)

// keepSmall bounds the memory of the process, unless whoever runs it says how. The loop that it returns gives back what a
// burst took: Go does so by itself as well, over minutes, and only what is over the size at which it collects next.
func keepSmall() (giveBack func(context.Context) error) {
	if os.Getenv("GOGC") != "" {
		return func(ctx context.Context) error { <-ctx.Done(); return nil }
	}
	debug.SetGCPercent(garbageShare)
	return giveBackSpare
}

func giveBackSpare(ctx context.Context) error {
	ticker := time.NewTicker(spareInterval)
	defer ticker.Stop()
	before, gave := readHeap(), time.Time{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		now := readHeap()
		if now.hasSpare(before) && time.Since(gave) >= giveBackInterval {
			debug.FreeOSMemory()
			gave = time.Now()
		}
		before = now
	}
}

// heap is what the process has of memory for what it allocates.
type heap struct {
	allocated uint64 // ever
	live      uint64 // when it was last collected
	held      uint64 // of the system's memory, whatever is in it
}

func readHeap() heap {
	samples := []metrics.Sample{
		{Name: "/gc/heap/allocs:bytes"},
		{Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
	}
	metrics.Read(samples)
	value := func(i int) uint64 { return samples[i].Value.Uint64() }
	return heap{allocated: value(0), live: value(1), held: value(2) + value(3) + value(4)}
}

// hasSpare reports whether much is held that is not live, and little happens: who works needs the room.
func (h heap) hasSpare(before heap) bool {
	spare := h.held - min(h.held, h.live)
	return h.allocated-before.allocated <= spare/quietPart && spare >= leastSpare && spare >= h.held/4
}
