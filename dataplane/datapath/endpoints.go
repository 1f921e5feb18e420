package datapath

import (
	"fmt"
	"math/bits"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/bpf"
)

// SetEndpoints says which resolvers are trusted and which policy servers the node may always reach.
// Addresses of both families; UDP and TCP for resolvers, TCP for servers.
func (d *Datapath) SetEndpoints(resolvers, servers []netip.AddrPort) error {
	want := map[bpf.DatapathEndpointKey]bpf.DatapathEndpointFlag{}
	for _, r := range resolvers {
		want[endpoint(r, unix.IPPROTO_UDP)] |= bpf.DatapathEndpointFlagENDPOINT_RESOLVER
		want[endpoint(r, unix.IPPROTO_TCP)] |= bpf.DatapathEndpointFlagENDPOINT_RESOLVER
	}
	for _, s := range servers {
		want[endpoint(s, unix.IPPROTO_TCP)] |= bpf.DatapathEndpointFlagENDPOINT_SERVER
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	have, err := readMap(d.kernel.Endpoints, func(bpf.DatapathEndpointKey) bool { return true }, bpf.DatapathEndpointFlag(0))
	if err != nil {
		return err
	}
	// One that is trusted no longer is nowhere afterwards, whatever fails.
	if err := d.kernel.setNear(nil); err != nil {
		return err
	}
	if err := writeMap(d.kernel.Endpoints, have, want); err != nil {
		return fmt.Errorf("set endpoints: %w", err)
	}
	return d.kernel.setNear(resolvers)
}

// setNear names the resolvers that a question is held against before it is looked up whether its is one.
func (k *kernel) setNear(resolvers []netip.AddrPort) error {
	s, err := k.settings()
	if err != nil {
		return err
	}
	s.Resolvers = [len(s.Resolvers)]bpf.DatapathEndpointKey{}
	for i, r := range resolvers[:min(len(resolvers), len(s.Resolvers))] {
		s.Resolvers[i] = endpoint(r, unix.IPPROTO_UDP)
	}
	return k.putSettings(s)
}

func endpoint(a netip.AddrPort, protocol uint16) bpf.DatapathEndpointKey {
	// The port is in network byte order; the programs are built for little-endian machines alone.
	return bpf.DatapathEndpointKey{Address: address(a.Addr()), Port: bits.ReverseBytes16(a.Port()), Protocol: protocol}
}
