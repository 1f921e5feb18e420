package lab

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Namespace is a network namespace of the lab.
type Namespace struct {
	// Name is the name under which `ip netns` knows it.
	Name string
	file *os.File
	uid  int // of what runs in it; 0 for the process's own
}

// NewNamespace makes a namespace that is no part of a lab: with nothing but loopback. Remove ends it.
func NewNamespace(ctx context.Context, name string) (*Namespace, error) {
	return newNamespace(ctx, name)
}

// Remove ends the namespace.
func (n *Namespace) Remove() error { return n.remove() }

func newNamespace(ctx context.Context, name string) (*Namespace, error) {
	if err := run(ctx, "ip", "netns", "add", name); err != nil {
		return nil, err
	}
	file, err := os.Open("/run/netns/" + name)
	if err != nil {
		return nil, err
	}
	n := &Namespace{name, file, 0}
	// Duplicate address detection would hold IPv6 back for up to two seconds.
	if err := n.Do(func() error {
		return os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0)
	}); err != nil {
		return n, fmt.Errorf("switch duplicate address detection off: %w", err)
	}
	return n, run(ctx, "ip", "-n", name, "link", "set", "lo", "up")
}

// As is the namespace for a user: sockets that Do makes are the user's.
func (n *Namespace) As(uid int) *Namespace { return &Namespace{n.Name, n.file, uid} }

// remove ends what still runs in the namespace, and the namespace.
func (n *Namespace) remove() error {
	_ = n.file.Close()
	return run(context.Background(), "ip", "netns", "del", n.Name)
}

// Do runs f on a thread that is in the namespace. Sockets that f makes stay in it.
func (n *Namespace) Do(f func() error) error {
	result := make(chan error, 1)
	go func() {
		// The thread is not unlocked when the way back fails: it then ends with the goroutine.
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			result <- err
			return
		}
		defer home.Close() //nolint:errcheck // read only
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("enter namespace %s: %w", n.Name, err)
			return
		}
		if n.uid != 0 {
			_ = unix.Setfsuid(n.uid) // of this thread alone
		}
		err = f()
		_ = unix.Setfsuid(0)
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		result <- err
	}()
	return <-result
}

// Dial connects from the namespace. A connection attempt whose first packet is lost would take a second
// at least; timeout below that tells.
func (n *Namespace) Dial(network, address string, timeout time.Duration) (net.Conn, error) {
	var conn net.Conn
	err := n.Do(func() (err error) {
		conn, err = (&net.Dialer{Timeout: timeout, FallbackDelay: -1}).Dial(network, address)
		return err
	})
	return conn, err
}

// Command is a command that will run in the namespace, with the mount namespace of the caller: unlike
// `ip netns exec`, which hides bpffs.
func (n *Namespace) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{"--net=/run/netns/" + n.Name, "--", name}, args...)...)
}
