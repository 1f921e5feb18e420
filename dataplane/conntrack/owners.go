package conntrack

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// owner is the process that a socket is of, as the socket has it since it was made.
type owner struct {
	uid    uint32
	cgroup string // path; empty: not known
}

// socketKey names a socket: both ends; of one that is not connected only its own, perhaps without address.
type socketKey struct {
	protocol    uint8
	local, peer netip.AddrPort
}

// owners are the sockets of the node.
type owners struct {
	sockets map[socketKey][]owner
	paths   map[uint64]string // of control groups
}

// readOwners lists the sockets of the protocols that can be listed. Of what it does not find the owner is
// not known.
func readOwners() *owners {
	o := &owners{sockets: map[socketKey][]owner{}, paths: cgroupPaths()}
	for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_UDPLITE, unix.IPPROTO_SCTP} {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			o.list(protocol, family)
		}
	}
	return o
}

// of returns the owners that a connection of the node may have: several, where sockets share a port. None:
// it is not known.
func (o *owners) of(t tuple) []owner {
	local := t.source
	for _, key := range []socketKey{
		{t.protocol, local, t.destination},
		{t.protocol, local, netip.AddrPort{}},
		{t.protocol, netip.AddrPortFrom(netip.Addr{}, local.Port()), netip.AddrPort{}},
	} {
		if found := o.sockets[key]; len(found) > 0 {
			return found
		}
	}
	return nil
}

// Of struct inet_diag_req_v2 and struct inet_diag_msg (linux/inet_diag.h).
const (
	diagRequestBytes = 56
	diagMessageBytes = 72
	diagAllStates    = 0xffffffff
	diagSourcePort   = 4
	diagPeerPort     = 6
	diagSource       = 8
	diagPeer         = 24
	diagUID          = 64

	attrDiagCgroup = 21
)

// list takes in the sockets of a protocol and family. A kernel that cannot list them leaves them unknown.
func (o *owners) list(protocol, family uint8) {
	body := make([]byte, diagRequestBytes)
	body[0], body[1] = family, protocol
	binary.NativeEndian.PutUint32(body[4:], diagAllStates)
	for range listings {
		request := nl.NewNetlinkRequest(unix.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
		request.AddRawData(body)
		err := request.ExecuteIter(unix.NETLINK_SOCK_DIAG, 0, func(message []byte) bool {
			o.add(protocol, message)
			return true
		})
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return
		}
	}
}

func (o *owners) add(protocol uint8, message []byte) {
	if len(message) < diagMessageBytes {
		return
	}
	key := socketKey{
		protocol: protocol,
		local:    diagAddress(message, message[0], diagSource, diagSourcePort),
		peer:     diagAddress(message, message[0], diagPeer, diagPeerPort),
	}
	found := owner{uid: binary.NativeEndian.Uint32(message[diagUID:])}
	for a := range attributes(message[diagMessageBytes:]) {
		if a.kind == attrDiagCgroup && len(a.value) == 8 {
			found.cgroup = o.paths[binary.NativeEndian.Uint64(a.value)]
		}
	}
	if !slices.Contains(o.sockets[key], found) {
		o.sockets[key] = append(o.sockets[key], found)
	}
}

// diagAddress reads one end; of one that is not connected it is zero, of any address that is.
func diagAddress(message []byte, family uint8, address, port int) netip.AddrPort {
	length := 4
	if family == unix.AF_INET6 {
		length = 16
	}
	a, _ := netip.AddrFromSlice(message[address : address+length])
	a = a.Unmap()
	number := binary.BigEndian.Uint16(message[port:])
	if a.IsUnspecified() {
		a = netip.Addr{}
	}
	return netip.AddrPortFrom(a, number)
}
