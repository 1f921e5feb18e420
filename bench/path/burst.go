package path

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// burstPackets are sent in one call, and timed as one: few enough that a burst, other than of the slowest, ends
// before another process has its turn.
const burstPackets = 64

// message is struct mmsghdr of the kernel.
type message struct {
	header unix.Msghdr
	_      uint32 // how much of it was sent
	_      uint32
}

// A burst is packets that are sent in one call: whole frames, or datagrams of the node itself.
type burst struct {
	messages [burstPackets]message
	vectors  [burstPackets]unix.Iovec
	frames   [burstPackets][frameBytes]byte
	peers    [burstPackets]unix.RawSockaddrInet4
}

// setFrame makes a packet a whole frame.
func (b *burst) setFrame(i int, device byte, f flow, flags uint8, sequence, acknowledged uint32) {
	frame := writeFrame(b.frames[i][:], device, f, flags, sequence, acknowledged)
	b.vectors[i].Base = &frame[0]
	b.vectors[i].SetLen(len(frame))
	b.messages[i].header = unix.Msghdr{Iov: &b.vectors[i]}
	b.messages[i].header.SetIovlen(1)
}

// setDatagram makes a packet an empty datagram to somebody.
func (b *burst) setDatagram(i int, to netip.AddrPort) {
	peer := &b.peers[i]
	peer.Family, peer.Addr = unix.AF_INET, to.Addr().As4()
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&peer.Port))[:], to.Port())
	b.messages[i].header = unix.Msghdr{Name: (*byte)(unsafe.Pointer(peer)), Namelen: unix.SizeofSockaddrInet4}
}

// send sends the burst and tells how long it took. A rejection that comes back through the socket is an error.
func (b *burst) send(socket int) (time.Duration, error) {
	start := time.Now()
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(socket), uintptr(unsafe.Pointer(&b.messages[0])), burstPackets, 0, 0, 0)
	took := time.Since(start)
	if errno != 0 {
		return 0, fmt.Errorf("send packets: %w", errno)
	}
	if n != burstPackets {
		return 0, fmt.Errorf("send packets: %d of %d were sent", n, burstPackets)
	}
	return took, nil
}

// openFrames opens a socket that puts whole frames on a device.
func openFrames(device string) (int, error) {
	link, err := net.InterfaceByName(device)
	if err != nil {
		return 0, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open a socket for frames: %w", err)
	}
	err = errors.Join(
		unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: link.Index}),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1),
	)
	if err != nil {
		_ = unix.Close(fd)
		return 0, fmt.Errorf("bind a socket to %s: %w", device, err)
	}
	return fd, nil
}

// openDatagrams opens a socket of the node itself.
func openDatagrams() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open a socket: %w", err)
	}
	return fd, nil
}
