package e2e_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/nameward/nameward/e2e/cluster"
	"github.com/nameward/nameward/e2e/lab"
)

// highNet is a network on the loopback of a namespace: each participant has an address, and a user by whom its
// connections are known, so that any two can be cut off from each other. Agents and clients are the root's.
type highNet struct {
	*lab.Namespace
	t testing.TB
}

// participant is a process with an address of its own.
type participant struct {
	*cluster.Process
	name, host string
	uid, mark  int
}

const clientsMark = 1

var clients = participant{name: "clients", host: "127.0.0.1", mark: clientsMark}

func newHighNet(t testing.TB) *highNet {
	t.Helper()
	ns, err := lab.NewNamespace(t.Context(), fmt.Sprintf("nameward-ha-%d", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	n := &highNet{ns, t}
	t.Cleanup(func() {
		if err := ns.Remove(); err != nil {
			t.Error(err)
		}
	})
	n.iptables("-N", "CUT")
	n.iptables("-A", "OUTPUT", "-m", "conntrack", "--ctstate", "NEW", "-m", "owner", "--uid-owner", "0", "-j", "CONNMARK", "--set-mark", strconv.Itoa(clientsMark))
	return n
}

func (n *highNet) iptables(args ...string) {
	n.t.Helper()
	out, err := n.Command(context.Background(), "iptables", append([]string{"-w"}, args...)...).CombinedOutput()
	if err != nil {
		n.t.Fatalf("iptables %v: %v\n%s", args, err, out)
	}
}

// join makes a participant; what it opens is marked.
func (n *highNet) join(name, host string, uid, mark int) *participant {
	n.t.Helper()
	n.iptables("-A", "OUTPUT", "-m", "conntrack", "--ctstate", "NEW", "-m", "owner", "--uid-owner", strconv.Itoa(uid), "-j", "CONNMARK", "--set-mark", strconv.Itoa(mark))
	return &participant{name: name, host: host, uid: uid, mark: mark}
}

// connected is called when all have joined.
func (n *highNet) connected() { n.iptables("-A", "OUTPUT", "-j", "CUT") }

// command runs a program as the participant's user in the namespace.
func (n *highNet) command(p *participant) cluster.Command {
	return func(ctx context.Context, name string, args ...string) *exec.Cmd {
		user := strconv.Itoa(p.uid)
		return n.Command(ctx, "setpriv", append([]string{"--reuid", user, "--regid", user, "--clear-groups", name}, args...)...)
	}
}

// cut drops what two participants send each other, on connections that either opened. heal mends everything.
func (n *highNet) cut(a, b *participant) {
	n.t.Helper()
	for _, pair := range [][2]*participant{{a, b}, {b, a}} {
		opener, listener := pair[0], pair[1]
		for _, side := range []string{"-d", "-s"} {
			n.iptables("-A", "CUT", "-m", "connmark", "--mark", strconv.Itoa(opener.mark), side, listener.host, "-j", "DROP")
		}
	}
}

func (n *highNet) heal() {
	n.t.Helper()
	n.iptables("-F", "CUT")
}
