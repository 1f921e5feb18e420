package path

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A node is a machine for packets to pass: a network namespace with two cables, both ends of each in it. What is
// sent into source0 comes out of in0, as from a client, and is forwarded to out0; what the node sends itself goes
// there too. It ends in sink0, which is another host for it. Nothing of a node has a name outside of it, so that
// nothing is left however the process ends.
//
//	source0 ── in0 (node) out0 ── sink0
type node struct {
	work  chan func()
	ended chan struct{}
	stop  []func()
	cable struct{ source, sink int } // sockets for whole frames
}

// bpfDir and stateDir are where a node keeps pins and files. Only its own thread sees them.
const (
	bpfDir   = "/sys/fs/bpf"
	stateDir = "/run"
)

// newNode makes a machine and its cables.
func newNode(ctx context.Context) (*node, error) {
	n := &node{work: make(chan func()), ended: make(chan struct{})}
	ready := make(chan error)
	go n.live(ready)
	err := <-ready
	if err != nil {
		return nil, fmt.Errorf("make a node: %w", err)
	}
	if err := n.do(func() error { return n.wire(ctx) }); err != nil {
		n.close()
		return nil, fmt.Errorf("wire a node: %w", err)
	}
	return n, nil
}

// live is the node's thread. It is never unlocked: the namespaces end with it.
func (n *node) live(ready chan<- error) {
	defer close(n.ended)
	runtime.LockOSThread()
	err := enterNamespaces()
	ready <- err
	if err != nil {
		return
	}
	for f := range n.work {
		f()
	}
}

func enterNamespaces() error {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWNET); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", stateDir, "tmpfs", 0, ""); err != nil {
		return err
	}
	return unix.Mount("bpf", bpfDir, "bpf", 0, "")
}

// do runs f on the node's thread, from which programs are started and sockets opened in the node.
func (n *node) do(f func() error) error {
	result := make(chan error)
	n.work <- func() { result <- f() }
	return <-result
}

// atEnd has f run on the node's thread when the node ends, the last first.
func (n *node) atEnd(f func()) { n.stop = append(n.stop, f) }

// close ends the node with all that is in it.
func (n *node) close() {
	_ = n.do(func() error {
		for i := range n.stop {
			n.stop[len(n.stop)-1-i]()
		}
		return nil
	})
	close(n.work)
	<-n.ended
}

// Addresses and routes. Neighbours are written down, none is asked for, and what comes to the far end of a cable
// is for another host: it is dropped there at once.
const wiring = `link set lo up
link add in0 address 02:00:00:00:00:01 type veth peer name source0 address 02:00:00:00:00:11
link add out0 address 02:00:00:00:00:02 type veth peer name sink0 address 02:00:00:00:00:12
addr add 10.79.0.1/24 dev in0
addr add 10.78.0.1/24 dev out0
link set in0 up
link set source0 up
link set out0 up
link set sink0 up
neigh add 10.79.0.2 lladdr 02:00:00:00:00:91 dev in0 nud permanent
neigh add 10.78.0.2 lladdr 02:00:00:00:00:92 dev out0 nud permanent
route add 10.77.0.0/16 via 10.79.0.2 dev in0
route add default via 10.78.0.2 dev out0
`

func (n *node) wire(ctx context.Context) error {
	for file, value := range map[string]string{
		"/proc/sys/net/ipv6/conf/all/disable_ipv6":     "1", // it would send packets of its own
		"/proc/sys/net/ipv6/conf/default/disable_ipv6": "1",
		"/proc/sys/net/ipv4/ip_forward":                "1",
		"/proc/sys/net/ipv4/conf/all/rp_filter":        "0",
		"/proc/sys/net/ipv4/conf/default/rp_filter":    "0",
	} {
		if err := os.WriteFile(file, []byte(value), 0); err != nil {
			return err
		}
	}
	if err := run(ctx, wiring, "ip", "-batch", "-"); err != nil {
		return err
	}
	for name, socket := range map[string]*int{"source0": &n.cable.source, "sink0": &n.cable.sink} {
		fd, err := openFrames(name)
		if err != nil {
			return err
		}
		*socket = fd
		n.atEnd(func() { _ = unix.Close(fd) })
	}
	return nil
}

// carried tells how many packets went out of a device.
func (n *node) carried(device string) (count uint64, err error) {
	err = n.do(func() error {
		text, err := os.ReadFile("/proc/thread-self/net/dev")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) {
			name, counters, _ := strings.Cut(strings.TrimSpace(line), ":")
			if fields := strings.Fields(counters); name == device && len(fields) > 9 {
				count, err = strconv.ParseUint(fields[9], 10, 64)
				return err
			}
		}
		return fmt.Errorf("device %s is not there", device)
	})
	return count, err
}

// patience is how long packets may take: on a busy machine the kernel leaves the last of them to a thread.
const patience = 5 * time.Second

// await waits until as many packets went out of a device. Fewer were lost.
func (n *node) await(device string, want uint64) error {
	for start := time.Now(); ; runtime.Gosched() {
		carried, err := n.carried(device)
		if err != nil {
			return err
		}
		if carried == want {
			return nil
		}
		if carried > want || time.Since(start) > patience {
			return fmt.Errorf("%d packets went out of %s, and not %d", carried, device, want)
		}
	}
}

// run runs a program with an input. On a node's thread it runs in the node.
func run(ctx context.Context, input, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		text := strings.TrimSpace(string(out))
		return fmt.Errorf("%s %s: %w: %.500s", name, strings.Join(args, " "), err, text)
	}
	return nil
}
