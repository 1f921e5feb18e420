package path

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

const (
	etherBytes = 14
	ipv4Bytes  = 20
	tcpBytes   = 20
	udpBytes   = 8
	frameBytes = etherBytes + ipv4Bytes + tcpBytes
)

// Flags of TCP.
const (
	syn = 0x02
	ack = 0x10
)

// A flow is one direction of a connection.
type flow struct {
	protocol uint8
	from, to netip.AddrPort
}

func (f flow) reverse() flow { return flow{f.protocol, f.to, f.from} }

// Devices of a node that frames are sent to, by the last byte of their address.
const (
	toIn0  = 0x01
	toOut0 = 0x02
)

// writeFrame writes a packet of a flow, without payload, as it is on the cable.
func writeFrame(frame []byte, device byte, f flow, flags uint8, sequence, acknowledged uint32) []byte {
	transport := tcpBytes
	if f.protocol == unix.IPPROTO_UDP {
		transport = udpBytes
	}
	frame = frame[:etherBytes+ipv4Bytes+transport]
	clear(frame)
	frame[0], frame[5], frame[6], frame[11] = 2, device, 2, 0x99
	binary.BigEndian.PutUint16(frame[12:], unix.ETH_P_IP)
	ip := frame[etherBytes:]
	ip[0], ip[8], ip[9] = 4<<4|ipv4Bytes/4, 64, f.protocol
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip))) //nolint:gosec // 40 bytes at most
	copy(ip[12:], f.from.Addr().AsSlice())
	copy(ip[16:], f.to.Addr().AsSlice())
	binary.BigEndian.PutUint16(ip[10:], checksum(0, ip[:ipv4Bytes]))
	l4 := ip[ipv4Bytes:]
	binary.BigEndian.PutUint16(l4, f.from.Port())
	binary.BigEndian.PutUint16(l4[2:], f.to.Port())
	if f.protocol == unix.IPPROTO_UDP {
		binary.BigEndian.PutUint16(l4[4:], udpBytes) // without a checksum
		return frame
	}
	binary.BigEndian.PutUint32(l4[4:], sequence)
	binary.BigEndian.PutUint32(l4[8:], acknowledged)
	l4[12], l4[13] = tcpBytes/4<<4, flags
	binary.BigEndian.PutUint16(l4[14:], 65_535)
	pseudo := uint32(f.protocol) + tcpBytes
	for i := 12; i < ipv4Bytes; i += 2 {
		pseudo += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	binary.BigEndian.PutUint16(l4[16:], checksum(pseudo, l4))
	return frame
}

// checksum is that of the internet, of an even number of bytes.
func checksum(sum uint32, data []byte) uint16 {
	for i := 0; i < len(data); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(data[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum) //nolint:gosec // folded to 16 bits
}
