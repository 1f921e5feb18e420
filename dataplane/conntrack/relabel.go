package conntrack

import (
	"encoding/binary"
	"fmt"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// relabelling sets and clears bits of a connection's label.
type relabelling struct {
	entry      *entry
	set, unset []int
}

func (r relabelling) message() []byte {
	values, mask := make([]byte, labelBytes), make([]byte, labelBytes)
	for _, bit := range r.set {
		values[bit/8] |= 1 << (bit % 8)
		mask[bit/8] |= 1 << (bit % 8)
	}
	for _, bit := range r.unset {
		mask[bit/8] |= 1 << (bit % 8)
	}
	return appendAttribute(appendAttribute(r.entry.name(), attrLabels, values), attrLabelsMask, mask)
}

// inOneCall is how many messages the kernel is sent at once. What it says of them has room in a socket.
const inOneCall = 64

// relabel changes labels, and returns what went wrong with each. To ask for each alone takes many times as long.
func (t *kernelTable) relabel(all []relabelling) []error {
	errs := make([]error, 0, len(all))
	for some := range slices.Chunk(all, inOneCall) {
		errs = append(errs, t.relabelSome(some)...)
	}
	return errs
}

func (t *kernelTable) relabelSome(some []relabelling) []error {
	var call []byte
	first, errs := t.sequence, make([]error, len(some))
	for i, change := range some {
		flags := uint16(unix.NLM_F_REQUEST)
		if i == len(some)-1 {
			flags |= unix.NLM_F_ACK // of the others the kernel tells what went wrong
		}
		call = appendMessage(call, messageNew, flags, t.sequence, change.message())
		t.sequence++
	}
	if err := t.ask(call, first, errs); err != nil {
		for i := range errs {
			errs[i] = err
		}
	}
	return errs
}

// ask sends messages with numbers from first on, and reads what the kernel says of each, up to the last.
func (t *kernelTable) ask(call []byte, first uint32, errs []error) error {
	if err := unix.Sendto(t.socket.GetFd(), call, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send netlink messages: %w", err)
	}
	for {
		answers, _, err := t.socket.Receive()
		if err != nil {
			return fmt.Errorf("receive netlink messages: %w", err)
		}
		for _, answer := range answers {
			of := int(answer.Header.Seq - first)
			if of >= len(errs) || answer.Header.Type != unix.NLMSG_ERROR || len(answer.Data) < 4 {
				continue
			}
			if code := int32(binary.NativeEndian.Uint32(answer.Data)); code != 0 { //nolint:gosec // the kernel's sign
				errs[of] = syscall.Errno(-code) //nolint:gosec // of an error
			}
			if of == len(errs)-1 {
				return nil
			}
		}
	}
}

func appendMessage(b []byte, kind, flags uint16, sequence uint32, body []byte) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(unix.NLMSG_HDRLEN+len(body))) //nolint:gosec // some hundred bytes
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, sequence)
	b = binary.NativeEndian.AppendUint32(b, 0) // the port is the socket's
	return append(b, body...)
}
