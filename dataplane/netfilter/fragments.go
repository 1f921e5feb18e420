package netfilter

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/dataplane/preflight"
)

const (
	tunDevice      = "/dev/net/tun"
	tunName        = "nameward0" // in the scratch namespace alone
	fragmentMarker = commentPrefix + "fragments"
)

// probeFragments lets a datagram come in as two fragments, by an interface of its own, and looks how many
// packets a rule of mangle sees: with conntrack it is one. Loopback would not show it: what conntrack saw
// go out it does not put together again.
func (f *family) probeFragments(ctx context.Context) preflight.Requirement {
	name := f.name("defragmentation")
	packets, err := f.countFragments(ctx, "-m conntrack ! --ctstate UNTRACKED ")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return preflight.Warn(name, "not tried: there is no "+tunDevice, "load the kernel module tun, to have it tried")
	case err == nil && packets != "1":
		err = fmt.Errorf("a datagram in two fragments came as %s packets", packets)
	}
	return preflight.Judge(name, "fragments are put together before our rules", err,
		"have the kernel modules nf_conntrack and nf_defrag_ipv4 or nf_defrag_ipv6")
}

// countFragments returns how many packets a rule with a match sees of the datagram.
func (f *family) countFragments(ctx context.Context, match string) (string, error) {
	rule := fmt.Sprintf("*mangle\n-A PREROUTING -i %s %s-m comment --comment %q\nCOMMIT\n", tunName, match, fragmentMarker)
	if err := f.tools.restore(ctx, rule); err != nil {
		return "", err
	}
	if err := receive(f.fragments()); err != nil {
		return "", err
	}
	text, err := run(ctx, "", f.tools.saver, "-c", "-t", "mangle")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(text) {
		if strings.Contains(line, fragmentMarker) {
			packets, _, _ := strings.Cut(strings.TrimPrefix(line, "["), ":")
			return packets, nil
		}
	}
	return "", errors.New("the rule that counts is gone")
}

// receive has the kernel take packets as if they came in by an interface.
func receive(packets [][]byte) error {
	device, err := os.OpenFile(tunDevice, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("make interface: %w", err)
	}
	defer device.Close() //nolint:errcheck // the interface goes with it
	request, err := unix.NewIfreq(tunName)
	if err != nil {
		return fmt.Errorf("make interface: %w", err)
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(int(device.Fd()), unix.TUNSETIFF, request); err != nil { //nolint:gosec // a descriptor
		return fmt.Errorf("make interface: %w", err)
	}
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make socket: %w", err)
	}
	defer unix.Close(socket)
	request.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, request); err != nil {
		return fmt.Errorf("start interface: %w", err)
	}
	for _, packet := range packets {
		if _, err := device.Write(packet); err != nil {
			return fmt.Errorf("send fragment: %w", err)
		}
	}
	return nil
}

// fragments returns a UDP datagram of 24 bytes in two fragments.
func (f *family) fragments() [][]byte {
	datagram := make([]byte, 24)
	binary.BigEndian.PutUint16(datagram, 9)     // source port: discard
	binary.BigEndian.PutUint16(datagram[2:], 9) // destination port
	binary.BigEndian.PutUint16(datagram[4:], uint16(len(datagram)))
	const cut = 16 // a multiple of 8
	if f.tools.protocol == ipv6 {
		return [][]byte{fragmentV6(datagram[:cut], 0, true), fragmentV6(datagram[cut:], cut, false)}
	}
	return [][]byte{fragmentV4(datagram[:cut], 0, true), fragmentV4(datagram[cut:], cut, false)}
}

func fragmentV4(data []byte, offset uint16, more bool) []byte {
	packet := make([]byte, 20, 20+len(data))
	packet[0], packet[8], packet[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(packet[2:], uint16(20+len(data))) //nolint:gosec // short
	packet[5] = 1                                                // identification
	place := offset / 8
	if more {
		place |= 0x2000
	}
	binary.BigEndian.PutUint16(packet[6:], place)
	copy(packet[12:], []byte{192, 0, 2, 1, 192, 0, 2, 2})
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(packet[i:]))
	}
	binary.BigEndian.PutUint16(packet[10:], ^uint16(sum+sum>>16)) //nolint:gosec // folded
	return append(packet, data...)
}

func fragmentV6(data []byte, offset uint16, more bool) []byte {
	packet := make([]byte, 48, 48+len(data))
	packet[0], packet[6], packet[7] = 0x60, unix.IPPROTO_FRAGMENT, 64
	binary.BigEndian.PutUint16(packet[4:], uint16(8+len(data))) //nolint:gosec // short
	copy(packet[8:], []byte{0x20, 0x01, 0x0d, 0xb8, 15: 1})
	copy(packet[24:], []byte{0x20, 0x01, 0x0d, 0xb8, 15: 2})
	packet[40] = unix.IPPROTO_UDP
	if more {
		offset |= 1
	}
	binary.BigEndian.PutUint16(packet[42:], offset)
	packet[47] = 1 // identification
	return append(packet, data...)
}
