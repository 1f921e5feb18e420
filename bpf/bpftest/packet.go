package bpftest

import (
	"encoding/binary"
	"net/netip"
)

// Protocol numbers.
const (
	ICMP   = 1
	TCP    = 6
	UDP    = 17
	ICMPv6 = 58
	SCTP   = 132
)

// IP puts an Ethernet and an IP header in front of a transport header and what follows it. The programs
// see it from the IP header on.
func IP(source, destination netip.Addr, protocol uint8, transport []byte) []byte {
	if source.Is4() != destination.Is4() {
		panic("bpftest: addresses of two families in one packet")
	}
	if source.Is4() {
		return ipv4(source, destination, protocol, transport)
	}
	header := make([]byte, 14+40)
	header[12], header[13] = 0x86, 0xdd
	ip := header[14:]
	ip[0] = 6 << 4
	binary.BigEndian.PutUint16(ip[4:], uint16(len(transport)))
	ip[6], ip[7] = protocol, 64
	copy(ip[8:], source.AsSlice())
	copy(ip[24:], destination.AsSlice())
	return append(header, transport...)
}

func ipv4(source, destination netip.Addr, protocol uint8, transport []byte) []byte {
	header := make([]byte, 14+20)
	header[12], header[13] = 0x08, 0x00
	ip := header[14:]
	ip[0] = 4<<4 | 5
	binary.BigEndian.PutUint16(ip[2:], uint16(20+len(transport)))
	ip[8], ip[9] = 64, protocol
	copy(ip[12:], source.AsSlice())
	copy(ip[16:], destination.AsSlice())
	return append(header, transport...)
}

// Ports is the beginning of a TCP or SCTP header, padded to the length of one.
func Ports(source, destination uint16) []byte {
	transport := make([]byte, 20)
	binary.BigEndian.PutUint16(transport, source)
	binary.BigEndian.PutUint16(transport[2:], destination)
	return transport
}

// Datagram is a UDP packet.
func Datagram(source, destination netip.AddrPort, payload []byte) []byte {
	return IP(source.Addr(), destination.Addr(), UDP, UDPHeader(source.Port(), destination.Port(), payload))
}

// UDPHeader is a UDP header with its payload.
func UDPHeader(source, destination uint16, payload []byte) []byte {
	header := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(header, source)
	binary.BigEndian.PutUint16(header[2:], destination)
	binary.BigEndian.PutUint16(header[4:], uint16(8+len(payload)))
	return append(header, payload...)
}

// Connection is the first packet of a connection.
func Connection(protocol uint8, source, destination netip.AddrPort) []byte {
	if protocol == UDP {
		return Datagram(source, destination, nil)
	}
	return IP(source.Addr(), destination.Addr(), protocol, Ports(source.Port(), destination.Port()))
}

// Ping is an echo request, or another ICMP or ICMPv6 message.
func Ping(source, destination netip.Addr, messageType uint8) []byte {
	protocol := uint8(ICMP)
	if source.Is6() {
		protocol = ICMPv6
	}
	return IP(source, destination, protocol, []byte{messageType, 0, 0, 0, 0, 0, 0, 0})
}

// Flags of a TCP header.
const (
	SYN = 0x02
	ACK = 0x10
)

// Segment is a TCP packet.
func Segment(source, destination netip.AddrPort, sequence uint32, flags uint8, payload []byte) []byte {
	header := append(Ports(source.Port(), destination.Port()), payload...)
	binary.BigEndian.PutUint32(header[4:], sequence)
	header[12], header[13] = 5<<4, flags
	return IP(source.Addr(), destination.Addr(), TCP, header)
}
