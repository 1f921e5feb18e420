package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Addresses of the host that is on no path but its own.
var (
	OffPathV4 = netip.MustParseAddr("10.91.3.2")
	OffPathV6 = netip.MustParseAddr("fd91:3::2")
)

// AddOffPathHost adds a host behind the node that is neither the client, nor a resolver, nor between
// them: it hears nothing of what they say, but may claim to be any of them.
func (l *Lab) AddOffPathHost(ctx context.Context) (*Namespace, error) {
	host, err := newNamespace(ctx, l.Client.Name+"-off")
	if err != nil {
		return nil, err
	}
	l.cleanup = append(l.cleanup, host.remove)
	return host, errors.Join(script(ctx, host, fmt.Sprintf(`
link add eth0 type veth peer name off0 netns %s
addr add %s/24 dev eth0
addr add %s/64 dev eth0
link set eth0 up
`, l.Node.Name, OffPathV4, OffPathV6)), script(ctx, l.Node, `
addr add 10.91.3.1/24 dev off0
addr add fd91:3::1/64 dev off0
link set off0 up
`), script(ctx, host, `
route add default via 10.91.3.1
route add default via fd91:3::1
`))
}

// Spoof sends a datagram from the namespace in the name of another host.
func (n *Namespace) Spoof(from, to netip.AddrPort, payload []byte) error {
	return n.sendIP(to.Addr(), udpPacket(from, to, payload))
}

// SpoofFragments sends a datagram in the name of another host, in fragments of so many bytes, the last
// one first.
func (n *Namespace) SpoofFragments(from, to netip.AddrPort, payload []byte, bytes int) error {
	whole := udpPacket(from, to, payload)
	header := len(whole) - len(payload) - 8
	udp := whole[header:]
	bytes &^= 7
	for at := (len(udp) - 1) / bytes * bytes; at >= 0; at -= bytes {
		last := at+bytes >= len(udp)
		packet := fragment(whole[:header], udp[at:min(len(udp), at+bytes)], at, last)
		if err := n.sendIP(to.Addr(), packet); err != nil {
			return err
		}
	}
	return nil
}

// fragment makes a packet of a piece of a datagram, which begins at so many bytes.
func fragment(header, piece []byte, at int, last bool) []byte {
	const id, more = 4711, 0x2000
	if header[0]>>4 == 4 {
		packet := append(slices.Clone(header), piece...)
		binary.BigEndian.PutUint16(packet[2:], uint16(len(packet))) //nolint:gosec // of the size of an MTU
		binary.BigEndian.PutUint16(packet[4:], id)
		binary.BigEndian.PutUint16(packet[6:], uint16(at/8)) //nolint:gosec // 13 bits
		if !last {
			packet[6] |= more >> 8
		}
		return packet
	}
	extension := []byte{protocolUDP, 0, 0, 0, 0, 0, id >> 8, id & 0xff}
	binary.BigEndian.PutUint16(extension[2:], uint16(at)) //nolint:gosec // a multiple of 8 below 65536
	if !last {
		extension[3] |= 1
	}
	packet := slices.Concat(header, extension, piece)
	packet[6] = 44
	binary.BigEndian.PutUint16(packet[4:], uint16(len(extension)+len(piece))) //nolint:gosec // of the size of an MTU
	return packet
}

// sendIP sends a packet that has its IP header already.
func (n *Namespace) sendIP(to netip.Addr, packet []byte) error {
	return n.Do(func() error {
		family, address := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Addr: to.As16()})
		if to.Is4() {
			family, address = unix.AF_INET, &unix.SockaddrInet4{Addr: to.As4()}
		}
		socket, err := unix.Socket(family, unix.SOCK_RAW, unix.IPPROTO_RAW)
		if err != nil {
			return fmt.Errorf("open a raw socket: %w", err)
		}
		defer unix.Close(socket) //nolint:errcheck // nothing is buffered
		return unix.Sendto(socket, packet, 0, address)
	})
}

// udpPacket makes a whole datagram, with its IP header.
func udpPacket(from, to netip.AddrPort, payload []byte) []byte {
	udp := binary.BigEndian.AppendUint16(nil, from.Port())
	udp = binary.BigEndian.AppendUint16(udp, to.Port())
	udp = binary.BigEndian.AppendUint16(udp, uint16(8+len(payload))) //nolint:gosec // no test sends more
	udp = append(append(udp, 0, 0), payload...)
	binary.BigEndian.PutUint16(udp[6:], udpChecksum(from.Addr(), to.Addr(), udp))
	return ipPacket(from.Addr(), to.Addr(), udp)
}

const protocolUDP = 17

// ipPacket puts an IP header in front of a datagram. The kernel fills in the checksum of IPv4.
func ipPacket(from, to netip.Addr, udp []byte) []byte {
	if from.Is4() {
		header := make([]byte, 20)
		header[0], header[8], header[9] = 4<<4|5, 64, protocolUDP
		binary.BigEndian.PutUint16(header[2:], uint16(20+len(udp))) //nolint:gosec // no test sends more
		copy(header[12:], from.AsSlice())
		copy(header[16:], to.AsSlice())
		return append(header, udp...)
	}
	header := make([]byte, 40)
	header[0], header[6], header[7] = 6<<4, protocolUDP, 64
	binary.BigEndian.PutUint16(header[4:], uint16(len(udp))) //nolint:gosec // no test sends more
	copy(header[8:], from.AsSlice())
	copy(header[24:], to.AsSlice())
	return append(header, udp...)
}

// udpChecksum is that of RFC 768 and RFC 8200, 8.1.
func udpChecksum(from, to netip.Addr, udp []byte) uint16 {
	sum := uint32(protocolUDP) + uint32(len(udp)) //nolint:gosec // no test sends more
	for _, bytes := range [][]byte{from.AsSlice(), to.AsSlice(), udp} {
		for i, b := range bytes {
			sum += uint32(b) << (8 * (1 - i%2))
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	if checksum := ^uint16(sum); checksum != 0 { //nolint:gosec // folded
		return checksum
	}
	return 0xffff
}
