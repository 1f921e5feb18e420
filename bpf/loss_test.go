package bpf_test

import (
	"fmt"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
)

// What the agent did not hear of is counted, is in force all the same, and is told with the next answer.
func TestLostEventIsToldAgain(t *testing.T) {
	small := func(spec *ebpf.CollectionSpec) {
		spec.Maps[bpf.DatapathMapEvents].MaxEntries = uint32(os.Getpagesize())
	}
	e := &exchange{Datapath: bpftest.Load(t, 1024, small), t: t, client: source, resolver: source}
	e.trust(e.resolver)
	e.Pattern(0, "example.com", 0, belowSet)
	name := ""
	for i := 0; ; i++ {
		name = fmt.Sprintf("n%d.example.com", i)
		counted := e.resolve(name, name+". 60 IN A 192.0.2.1")
		if counted[bpf.DatapathCounterCOUNTER_LEARNED] != 1 {
			t.Fatalf("%s: counted %v", name, counted)
		}
		if counted[bpf.DatapathCounterCOUNTER_EVENT_LOST] == 1 {
			break
		}
	}
	e.Answers()
	e.resolve(name, name+". 60 IN A 192.0.2.1")
	if answers := e.Answers(); len(answers) != 1 || answers[0].Chain[0] != name {
		t.Errorf("after room was made: %+v", answers)
	}
}

// Many CPUs add to one address at once: none undoes what another did.
func TestNoUpdateIsLost(t *testing.T) {
	d := bpftest.Load(t, 1)
	const workers, sets = 4, 12
	hour := after(t, time.Hour)
	address := netip.MustParseAddr("192.0.2.1")
	for range 50 {
		d.Forget(d.Mappings)
		var group sync.WaitGroup
		for worker := range uint32(workers) {
			group.Go(func() {
				for set := range uint32(sets) {
					d.Remap(remapEntry(address, 1+worker*sets+set, hour))
				}
			})
		}
		group.Wait()
		if got := d.Learned(address); len(got) != workers*sets {
			t.Fatalf("%d match sets, want %d", len(got), workers*sets)
		}
	}
}
