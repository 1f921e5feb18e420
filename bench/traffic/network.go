package traffic

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/nameward/nameward/e2e/lab"
)

// Addresses of the world that every way leads to. All services are local to the world: each address answers.
var (
	services = netip.MustParsePrefix("10.128.0.0/9")
	resolver = netip.MustParseAddr("10.255.255.53") // a service, too
)

// A network is the lab with further ways into its world, so that every variant has a client, cables and a
// node of its own, and only what the node does differs.
//
//	client ── veth ── node 1 ── veth ──┐
//	client ── veth ── node 2 ── veth ──┤ world (knot, a TCP service on every address)
//	…                                  │
type network struct {
	*lab.Lab
	close []func() error
}

// A way leads from a client through a node into the world.
type way struct {
	name          string
	client, node  *lab.Namespace
	clientAddress netip.Addr
	server        netip.Addr // whom the client asks: the resolver, or the node
	pins          string     // where the agent keeps them, if one runs on the node
}

// newNetwork builds the lab, in which the programs of a directory run.
func newNetwork(ctx context.Context, programs string) (_ *network, err error) {
	n := &network{}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	if n.Lab, err = lab.New(ctx, programs); err != nil {
		return nil, fmt.Errorf("build lab: %w", err)
	}
	n.close = append(n.close, n.Lab.Close)
	if err := ip(ctx, fmt.Sprintf("-n %s route add local %s dev lo", n.World.Name, services)); err != nil {
		return nil, err
	}
	if err := n.startKnot(ctx); err != nil {
		return nil, err
	}
	return n, n.startService()
}

// Close ends all that runs and removes all that was made.
func (n *network) Close() error {
	var errs []error
	for len(n.close) > 0 {
		last := len(n.close) - 1
		errs = append(errs, n.close[last]())
		n.close = n.close[:last]
	}
	return errors.Join(errs...)
}

// labWay is the way through the lab's own node.
func (n *network) labWay() (*way, error) {
	w := &way{client: n.Client, node: n.Node, clientAddress: lab.ClientV4, server: resolver, pins: n.BPFDir}
	return w, w.settle()
}

// addWay adds a way. Of the addresses, number is the third byte.
func (n *network) addWay(ctx context.Context, number int) (*way, error) {
	w := &way{clientAddress: netip.AddrFrom4([4]byte{10, 92, byte(number), 2}), server: resolver} //nolint:gosec // there are few
	var err error
	if w.client, err = n.AddNamespace(ctx, fmt.Sprintf("client%d", number)); err != nil {
		return nil, err
	}
	if w.node, err = n.AddNamespace(ctx, fmt.Sprintf("node%d", number)); err != nil {
		return nil, err
	}
	err = ip(ctx, fmt.Sprintf(`
-n %[1]s link add eth0 type veth peer name client0 netns %[2]s
-n %[2]s link add world0 type veth peer name eth%[4]d netns %[3]s
-n %[1]s addr add 10.92.%[4]d.2/24 dev eth0
-n %[2]s addr add 10.92.%[4]d.1/24 dev client0
-n %[2]s addr add 10.93.%[4]d.1/24 dev world0
-n %[3]s addr add 10.93.%[4]d.2/24 dev eth%[4]d
-n %[1]s link set eth0 up
-n %[2]s link set client0 up
-n %[2]s link set world0 up
-n %[3]s link set eth%[4]d up
-n %[1]s route add default via 10.92.%[4]d.1
-n %[2]s route add default via 10.93.%[4]d.2
-n %[3]s route add 10.92.%[4]d.0/24 via 10.93.%[4]d.1
`, w.client.Name, w.node.Name, n.World.Name, number))
	if err != nil {
		return nil, err
	}
	return w, w.settle()
}

// settle makes the node a router, on which short connections do not fill the connection table.
func (w *way) settle() error {
	return w.node.Do(func() error {
		for file, value := range map[string]string{
			"/proc/sys/net/ipv4/ip_forward":                    "1",
			"/proc/sys/net/netfilter/nf_conntrack_udp_timeout": "5",
		} {
			if err := os.WriteFile(file, []byte(value), 0); err != nil {
				return fmt.Errorf("set up node: %w", err)
			}
		}
		return nil
	})
}

// nodeAddress is the node's, towards its client.
func (w *way) nodeAddress() netip.Addr {
	address := w.clientAddress.As4()
	address[3] = 1
	return netip.AddrFrom4(address)
}

// awaitAnswers waits until the client gets an answer, or the process that is to give it has ended.
func (w *way) awaitAnswers(ctx context.Context, process *lab.Process) error {
	var ended <-chan struct{}
	if process != nil {
		ended = process.Exited()
	}
	err := lab.Await(ctx, func() error {
		_, err := w.client.Resolve(w.server, readyName)
		return err
	}, ended)
	if err != nil && process != nil {
		err = fmt.Errorf("%w\n%s", err, process.ReadLog())
	}
	return err
}

// onNode runs a program on the node, with text as its input.
func (w *way) onNode(ctx context.Context, text, program string, args ...string) error {
	command := w.node.Command(ctx, program, args...)
	command.Stdin = strings.NewReader(text)
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, out)
	}
	return nil
}

// ip runs lines of arguments of ip.
func ip(ctx context.Context, lines string) error {
	for line := range strings.SplitSeq(strings.TrimSpace(lines), "\n") {
		if out, err := exec.CommandContext(ctx, "ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", line, err, out)
		}
	}
	return nil
}

// file is one of the lab's directory.
func (n *network) file(name string) string { return filepath.Join(n.Dir, name) }
