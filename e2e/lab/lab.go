// Package lab builds a small internet in network namespaces: a client, a node that routes for it, and
// the rest of the world with a DNS server and services on many addresses. The end-to-end tests and the
// demo run the programs in it. Everything it makes has names of its own, and goes with Close.
//
//	client ── veth ── node (policy server, agent) ── veth ── world (knot, services)
package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/e2e/lab/labclock"
)

// Addresses of the lab. The service prefixes are all local to the world: each address in them answers.
var (
	ClientV4   = netip.MustParseAddr("10.91.1.2")
	ClientV6   = netip.MustParseAddr("fd91:1::2")
	NodeV4     = netip.MustParseAddr("10.91.1.1")
	NodeV6     = netip.MustParseAddr("fd91:1::1")
	ResolverV4 = netip.MustParseAddr("10.91.2.2")
	ResolverV6 = netip.MustParseAddr("fd91:2::2")
	// RogueV4 and RogueV6 answer like the resolvers, but no node trusts them.
	RogueV4    = netip.MustParseAddr("10.91.2.3")
	RogueV6    = netip.MustParseAddr("fd91:2::3")
	ServicesV4 = netip.MustParsePrefix("198.18.0.0/15")
	ServicesV6 = netip.MustParsePrefix("2001:db8:18::/48")
)

// ServicePort and OtherPort are the TCP ports on which every service address answers.
const (
	ServicePort = 443
	OtherPort   = 8080
)

// Lab is a small internet. It is made by New and removed by Close.
type Lab struct {
	// Dir holds every file of the lab.
	Dir string
	// BPFFS is a bpf file system of the lab's own: pins go with it.
	BPFFS string
	// BPFDir is where the agent pins.
	BPFDir string
	// Client, Node and World are the network namespaces.
	Client, Node, World *Namespace

	// Agent is the program that StartAgent runs.
	Agent string

	id      string // what the names of its namespaces begin with
	bin     string
	hosts   int    // how many AddHost made
	bootID  string // a file, instead of the machine's; empty before the first Reboot
	clock   *os.File
	cleanup []func() error
}

var counter atomic.Uint32

// New builds a lab that runs the programs of the directory bin. It needs root.
func New(ctx context.Context, bin string) (*Lab, error) {
	removeAbandoned(ctx)
	dir, err := os.MkdirTemp("", fmt.Sprintf("nameward-lab-%d-", os.Getpid()))
	if err != nil {
		return nil, err
	}
	l := &Lab{
		Dir: dir, BPFFS: filepath.Join(dir, "bpffs"), Agent: filepath.Join(bin, "nameward-agent"),
		id: fmt.Sprintf("nw%d-%d", os.Getpid(), counter.Add(1)), bin: bin,
	}
	l.BPFDir = filepath.Join(l.BPFFS, "nameward")
	l.cleanup = append(l.cleanup, func() error { return os.RemoveAll(dir) })
	if l.clock, err = labclock.Create(dir); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	l.cleanup = append(l.cleanup, l.clock.Close)
	if err := l.build(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// removeAbandoned removes what is left of labs whose process was killed before it could.
func removeAbandoned(ctx context.Context) {
	for _, left := range []struct {
		glob, form string
		remove     func(path string)
	}{
		{"/run/netns/nw*-*", "nw%d-", func(path string) { _ = run(ctx, "ip", "netns", "del", filepath.Base(path)) }},
		{filepath.Join(os.TempDir(), "nameward-lab-*-*"), "nameward-lab-%d-", func(path string) {
			_ = unix.Unmount(filepath.Join(path, "bpffs"), unix.MNT_DETACH)
			_ = os.RemoveAll(path)
		}},
	} {
		paths, _ := filepath.Glob(left.glob)
		for _, path := range paths {
			var pid int
			if _, err := fmt.Sscanf(filepath.Base(path), left.form, &pid); err != nil {
				continue
			}
			if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err != nil {
				left.remove(path) // another lab may have been faster
			}
		}
	}
}

// StepClock has the wall clock of agents that BuildAgent built be off the machine's by so much, whole seconds, from now
// on.
func (l *Lab) StepClock(by time.Duration) error { return labclock.Step(l.clock, by) }

// Close ends every process of the lab and removes all that New and the programs made.
func (l *Lab) Close() error {
	var errs []error
	for len(l.cleanup) > 0 {
		last := len(l.cleanup) - 1
		errs = append(errs, l.cleanup[last]())
		l.cleanup = l.cleanup[:last]
	}
	return errors.Join(errs...)
}

// AddNamespace makes a network namespace with no cable to it. It goes with the lab.
func (l *Lab) AddNamespace(ctx context.Context, side string) (*Namespace, error) {
	ns, err := newNamespace(ctx, l.id+"-"+side)
	if err != nil {
		return nil, err
	}
	l.cleanup = append(l.cleanup, ns.remove)
	return ns, nil
}

func (l *Lab) build(ctx context.Context) error {
	if err := l.mountBPF(); err != nil {
		return err
	}
	for _, side := range []struct {
		name string
		at   **Namespace
	}{{"client", &l.Client}, {"node", &l.Node}, {"world", &l.World}} {
		var err error
		if *side.at, err = l.AddNamespace(ctx, side.name); err != nil {
			return err
		}
	}
	if err := l.wire(ctx); err != nil {
		return err
	}
	if err := l.startServices(); err != nil {
		return err
	}
	return l.startDNS(ctx)
}

func (l *Lab) mountBPF() error {
	if err := os.Mkdir(l.BPFFS, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("bpf", l.BPFFS, "bpf", 0, ""); err != nil {
		return fmt.Errorf("mount a bpf file system: %w", err)
	}
	l.cleanup = append(l.cleanup, func() error { return unix.Unmount(l.BPFFS, unix.MNT_DETACH) })
	return nil
}

// wire lays cables, addresses and routes.
func (l *Lab) wire(ctx context.Context) error {
	err := errors.Join(script(ctx, l.Client, fmt.Sprintf(`
link add eth0 type veth peer name client0 netns %s
addr add 10.91.1.2/24 dev eth0
addr add fd91:1::2/64 dev eth0
link set eth0 up
`, l.Node.Name)), script(ctx, l.World, fmt.Sprintf(`
link add eth0 type veth peer name world0 netns %s
addr add 10.91.2.2/24 dev eth0
addr add fd91:2::2/64 dev eth0
addr add 10.91.2.3/24 dev eth0
addr add fd91:2::3/64 dev eth0
link set eth0 up
route add default via 10.91.2.1
route add default via fd91:2::1
route add local %s dev lo
route add local %s dev lo
`, l.Node.Name, ServicesV4, ServicesV6)), script(ctx, l.Node, `
addr add 10.91.1.1/24 dev client0
addr add fd91:1::1/64 dev client0
addr add 10.91.2.1/24 dev world0
addr add fd91:2::1/64 dev world0
link set client0 up
link set world0 up
route add default via 10.91.2.2
route add default via fd91:2::2
`), script(ctx, l.Client, `
route add default via 10.91.1.1
route add default via fd91:1::1
`))
	if err != nil {
		return err
	}
	return l.Node.Do(func() error {
		for _, file := range []string{"/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"} {
			if err := os.WriteFile(file, []byte("1"), 0); err != nil {
				return fmt.Errorf("switch forwarding on: %w", err)
			}
		}
		return nil
	})
}

// ForgetKernelState removes rules and pins behind the agent's back, as a reboot does.
func (l *Lab) ForgetKernelState(ctx context.Context) error {
	for _, program := range []string{"iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"} {
		for _, table := range []string{"mangle", "filter"} {
			for _, command := range []string{"-F", "-X"} {
				if out, err := l.Node.Command(ctx, program, "-w", "-t", table, command).CombinedOutput(); err != nil {
					return fmt.Errorf("%s -t %s %s: %w: %s", program, table, command, err, out)
				}
			}
		}
	}
	return os.RemoveAll(l.BPFDir)
}

// script runs lines of arguments of ip in a namespace.
func script(ctx context.Context, at *Namespace, lines string) error {
	command := exec.CommandContext(ctx, "ip", "-n", at.Name, "-batch", "-")
	command.Stdin = strings.NewReader(strings.TrimSpace(lines))
	return finish(command)
}

func run(ctx context.Context, name string, args ...string) error {
	return finish(exec.CommandContext(ctx, name, args...))
}

func finish(command *exec.Cmd) error {
	out, err := command.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(command.Args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
