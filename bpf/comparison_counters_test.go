package bpf_test

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
)

// compareCounters compares what was counted since the last time: one of the reasons, if there are any, and
// the extra ones exactly. It gives the reason.
func (c *comparison) compareCounters(extra map[bpf.DatapathCounter]uint64, reasons ...bpf.DatapathCounter) bpf.DatapathCounter {
	now := c.counters()
	found := bpf.DatapathCounterCOUNTER_MAX
	for counter := range bpf.DatapathCounterCOUNTER_MAX {
		got := now[counter] - c.counted[counter]
		switch {
		case got == 1 && found == bpf.DatapathCounterCOUNTER_MAX && slices.Contains(reasons, counter):
			found = counter
		case counter == bpf.DatapathCounterCOUNTER_MAPPING_CREATED: // seen by what is there
		case counter == bpf.DatapathCounterCOUNTER_MAPPING_COLLECTED: // those that expired make room
		case got != extra[counter]:
			c.fault("counter %d: counted %d, want %d; of %v one", counter, got, extra[counter], reasons)
		}
	}
	if len(reasons) > 0 && found == bpf.DatapathCounterCOUNTER_MAX {
		c.fault("none of %v was counted", reasons)
	}
	c.counted = now
	if found < bpf.DatapathCounterCOUNTER_MAX {
		c.reasons[found]++
	}
	return found
}

type counted [bpf.DatapathCounterCOUNTER_MAX]uint64

// counters reads what the programs counted, without a system call.
func (c *comparison) counters() (now counted) {
	var bytes [8 * len(now)]byte
	if _, err := c.counts.ReadAt(bytes[:], 0); err != nil {
		c.t.Fatalf("read the counters: %v", err)
	}
	for i := range now {
		now[i] = binary.LittleEndian.Uint64(bytes[8*i:])
	}
	return now
}

// responses is how many responses were counted.
func responses(counters counted) (sum uint64) {
	for _, value := range counters[:bpf.DatapathCounterCOUNTER_BUSY+1] {
		sum += value
	}
	return sum
}

// compareMappings takes all that is known out of the kernel: it must be what was to be learned, no more.
func (c *comparison) compareMappings() {
	got := map[netip.Addr]map[use]uint64{}
	for _, mapping := range c.datapath.Cells() {
		address := netip.AddrFrom16(mapping.Address.Bytes).Unmap()
		if got[address] == nil {
			got[address] = map[use]uint64{}
		}
		for _, slot := range mapping.Slots {
			set, expires := bpftest.Slot(slot)
			if expires == 0 {
				continue
			}
			generation := int(set / 1000)
			patterns := c.layings[generation&1].sets[set]
			if len(patterns) == 0 {
				c.fault("%v has match set %d, which nothing stands for", address, set)
			}
			for _, pattern := range patterns {
				of := use{generation, pattern}
				got[address][of] = max(got[address][of], expires)
			}
		}
	}
	c.datapath.Forget(c.datapath.Mappings)
	now := bpftest.Ticks(bpftest.Now(c.t))
	for address, want := range c.learned {
		for of, expires := range want {
			have := got[address][of]
			expired := have == 0 && expires.from <= now // it may have been, and another has its place
			if (have < expires.from || have > expires.to) && !expired {
				c.fault("%v by %v: expires at %d, want from %d to %d", address, of, have, expires.from, expires.to)
			}
			delete(got[address], of)
		}
	}
	for address, more := range got {
		for of := range more {
			c.fault("%v is open by %v, want it closed", address, of)
		}
	}
}

// compareQueries takes all outstanding questions out of the kernel.
func (c *comparison) compareQueries() {
	open := 0
	c.eachBucket(func(bucket *bpf.DatapathQuestionBucket) {
		for _, state := range bucket.State {
			if state != 0 && state&stateAnswered == 0 {
				open++
			}
		}
		*bucket = bpf.DatapathQuestionBucket{}
	})
	if want := c.outstanding.open(); open != want {
		c.fault("%d questions are open, want %d", open, want)
	}
}

// forgetAnswers has the agent be told of everything anew.
func (c *comparison) forgetAnswers() {
	c.t.Helper()
	if _, err := c.answers.WriteAt(make([]byte, c.answers.Size()), 0); err != nil {
		c.t.Fatalf("empty the answers: %v", err)
	}
}
