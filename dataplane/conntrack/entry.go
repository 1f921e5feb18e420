package conntrack

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/api/ruleset"
)

// tuple is one direction of a connection.
type tuple struct {
	source, destination netip.AddrPort
	protocol            uint8
}

// entry is a connection as the kernel lists it.
type entry struct {
	family   uint8
	original tuple  // as it was opened, before any NAT
	master   *tuple // of the connection that it is related to
	status   uint32
	labels   []byte // nil: it has no room for any
	tcpState uint8  // 0: of another protocol
	raw      []byte // its attributes

	// The same of the message, to name it by.
	originalRaw, zoneRaw, idRaw []byte
}

var errShortEntry = errors.New("connection is cut short")

// parseEntry reads a message of a listing.
func parseEntry(message []byte) (entry, error) {
	if len(message) < 4 {
		return entry{}, errShortEntry
	}
	e := entry{family: message[0], raw: message[4:]}
	for a := range attributes(e.raw) {
		switch a.kind {
		case attrOriginal:
			e.original, e.originalRaw = parseTuple(a.value), a.whole
		case attrMaster:
			master := parseTuple(a.value)
			e.master = &master
		case attrStatus:
			e.status = number(a.value)
		case attrProtoInfo:
			e.tcpState = parseTCPState(a.value)
		case attrLabels:
			e.labels = a.value
		case attrZone:
			e.zoneRaw = a.whole
		case attrID:
			e.idRaw = a.whole
		}
	}
	if !e.original.destination.Addr().IsValid() || !e.original.source.Addr().IsValid() {
		return entry{}, errShortEntry
	}
	return e, nil
}

func parseTuple(value []byte) tuple {
	var t tuple
	var source, destination netip.Addr
	var from, to uint16
	for half := range attributes(value) {
		for a := range attributes(half.value) {
			switch half.kind<<attrTupleHalf | a.kind {
			case attrTupleIP<<attrTupleHalf | attrSourceV4, attrTupleIP<<attrTupleHalf | attrSourceV6:
				source, _ = netip.AddrFromSlice(a.value)
			case attrTupleIP<<attrTupleHalf | attrDestinationV4, attrTupleIP<<attrTupleHalf | attrDestinationV6:
				destination, _ = netip.AddrFromSlice(a.value)
			case attrTupleProtocol<<attrTupleHalf | attrProtocolNumber:
				t.protocol = byteOf(a.value)
			case attrTupleProtocol<<attrTupleHalf | attrSourcePort:
				from = port(a.value)
			case attrTupleProtocol<<attrTupleHalf | attrDestinationPort:
				to = port(a.value)
			}
		}
	}
	t.source, t.destination = netip.AddrPortFrom(source.Unmap(), from), netip.AddrPortFrom(destination.Unmap(), to)
	return t
}

// nameTuple writes what parseTuple reads.
func nameTuple(from, to netip.AddrPort, protocol uint8) []byte {
	source, destination := uint16(attrSourceV4), uint16(attrDestinationV4)
	if from.Addr().Is6() {
		source, destination = attrSourceV6, attrDestinationV6
	}
	ip := appendAttribute(nil, source, from.Addr().AsSlice())
	ip = appendAttribute(ip, destination, to.Addr().AsSlice())
	ports := appendAttribute(nil, attrProtocolNumber, []byte{protocol})
	ports = appendAttribute(ports, attrSourcePort, binary.BigEndian.AppendUint16(nil, from.Port()))
	ports = appendAttribute(ports, attrDestinationPort, binary.BigEndian.AppendUint16(nil, to.Port()))
	return append(appendAttribute(nil, attrTupleIP|unix.NLA_F_NESTED, ip), appendAttribute(nil, attrTupleProtocol|unix.NLA_F_NESTED, ports)...)
}

func byteOf(b []byte) uint8 {
	if len(b) != 1 {
		return 0
	}
	return b[0]
}

func parseTCPState(value []byte) uint8 {
	for info := range attributes(value) {
		for a := range attributes(info.value) {
			if info.kind == attrTCP && a.kind == attrTCPState {
				return byteOf(a.value)
			}
		}
	}
	return 0
}

// over reports whether both sides have closed the connection. The kernel remembers it for a while.
func (e *entry) over() bool { return e.tcpState == tcpTimeWait || e.tcpState == tcpClose }

// offloaded reports whether packets of the connection pass by a flow table, not by rules.
func (e *entry) offloaded() bool { return e.status&(statusOffload|statusHWOffload) != 0 }

// ofOther reports whether the other side opened the connection, as one that is related to another.
func (e *entry) ofOther() bool {
	return e.master != nil && e.master.source.Addr() != e.original.source.Addr()
}

// asked is what the verdict is about: of a related connection, that which it is related to.
func (e *entry) asked() tuple {
	if e.master != nil {
		return *e.master
	}
	return e.original
}

// labelled reports whether the connection has a label.
func (e *entry) labelled(bit int) bool {
	return bit/8 < len(e.labels) && e.labels[bit/8]&(1<<(bit%8)) != 0
}

// translated reports whether addresses or ports of the connection are rewritten.
func (e *entry) translated() bool { return e.status&(statusSourceNAT|statusDestNAT) != 0 }

// ruleProtocol is the protocol as rules have it.
func (t tuple) ruleProtocol() ruleset.Protocol {
	if t.protocol == unix.IPPROTO_ICMPV6 {
		return ruleset.ICMP
	}
	return ruleset.Protocol(t.protocol)
}

// number reads a number of a message, which is in network byte order.
func number(b []byte) uint32 {
	if len(b) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

func port(b []byte) uint16 {
	if len(b) != 2 {
		return 0
	}
	return binary.BigEndian.Uint16(b)
}
