package e2e_test

import (
	"net/netip"
	"sync"
	"testing"

	"github.com/nameward/nameward/e2e/lab"
)

// freshConnections is how many fresh names are resolved and connected to, in each backend and family.
const freshConnections = 10000

// TestFirstPacket resolves fresh names and connects to each at once. A connection that takes longer than
// the first retransmission lost its first packet.
func TestFirstPacket(t *testing.T) {
	forEachBackend(t, func(t *testing.T, backend string) {
		f := newFleet(t, "--iptables", backend)
		f.put(clientPolicy("*.fresh.example"))
		forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
			var workers sync.WaitGroup
			names := make(chan string)
			for range 4 {
				workers.Go(func() {
					for name := range names {
						f.resolveAndConnect(t, resolver, name)
					}
				})
			}
			for i := range freshConnections {
				names <- lab.FreshName(i)
			}
			close(names)
			workers.Wait()
		})
	})
}

func (f *fleet) resolveAndConnect(t *testing.T, resolver netip.Addr, name string) {
	addresses, err := f.Resolve(resolver, name)
	if err != nil {
		t.Errorf("resolve %s: %v", name, err)
		return
	}
	if err := f.Connect(addresses[0], lab.ServicePort); err != nil {
		t.Errorf("connect to %s (%s) right after its answer: %v", name, addresses[0], err)
	}
}
