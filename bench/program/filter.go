package program

import (
	"context"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/bench/measure"
)

// BPF_PROG_TEST_RUN takes no packet that is larger than a page. Larger ones are written to a socket whose
// filter is the program, which sees in them what xt_bpf shows: a packet from the IP header on.

const (
	etherHeader = 14
	filterTime  = 2e6 // ns of one sample
	filterMost  = 500 // packets in a sample
)

// A filter is a pair of sockets, one with a program as its filter.
type filter struct {
	program *ebpf.Program
	sockets [2]int
}

func newFilter(program *ebpf.Program) (*filter, error) {
	sockets, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("make sockets: %w", err)
	}
	f := &filter{program, sockets}
	err = unix.SetsockoptInt(sockets[1], unix.SOL_SOCKET, unix.SO_ATTACH_BPF, program.FD())
	if errors.Is(err, unix.ENOMEM) {
		err = fmt.Errorf("%w (older kernels need a net.core.optmem_max of 100,000)", err)
	}
	if err == nil {
		err = unix.SetsockoptInt(sockets[0], unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 1<<20)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("attach %v to a socket: %w", program, err), f.close())
	}
	return f, nil
}

func (f *filter) close() error {
	return errors.Join(unix.Close(f.sockets[0]), unix.Close(f.sockets[1]))
}

// filtered runs a program on one packet as a socket's filter. A sample is the mean of a run, in nanoseconds, by
// the kernel's own account, which has to be on. The program gives 0, so that no packet is delivered.
func (f *filter) filtered(name string, packet []byte) measure.Variant {
	packet = packet[etherHeader:]
	packets := 0
	return measure.Variant{Name: name, Sample: func(ctx context.Context) (float64, error) {
		if packets == 0 {
			took, err := f.mean(ctx, packet, 2)
			if err != nil {
				return 0, err
			}
			packets = min(max(int(filterTime/max(took, 1)), 1), filterMost)
		}
		return f.mean(ctx, packet, packets)
	}}
}

func (f *filter) mean(ctx context.Context, packet []byte, packets int) (float64, error) {
	before, err := f.program.Stats()
	if err != nil {
		return 0, fmt.Errorf("read statistics: %w", err)
	}
	for range packets {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if _, err := unix.Write(f.sockets[0], packet); err != nil {
			return 0, fmt.Errorf("write %d bytes to %v: %w", len(packet), f.program, err)
		}
	}
	after, err := f.program.Stats()
	if err != nil {
		return 0, fmt.Errorf("read statistics: %w", err)
	}
	if ran := after.RunCount - before.RunCount; ran != uint64(packets) { //nolint:gosec // not negative
		return 0, fmt.Errorf("%v ran %d times on %d packets", f.program, ran, packets)
	}
	return float64(after.Runtime-before.Runtime) / float64(packets), nil
}
