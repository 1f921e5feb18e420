package traffic

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/nameward/nameward/e2e/lab"
)

// allowedSet is the ipset, or set of nf_tables, of what a node's user space has opened.
const allowedSet = "allowed"

// suffix is what the bench's zones have in common: the baselines allow what is below it.
const suffix = "bench"

func setUpOneRule(ctx context.Context, _ *network, w *way) error {
	return w.onNode(ctx, "", "iptables", "-t", "mangle", "-A", "PREROUTING", "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "RETURN")
}

// allowBySet lets new connections pass to the addresses of an ipset alone. What is refused is reset, so that
// a client knows at once.
func allowBySet(ctx context.Context, w *way) error {
	if err := w.onNode(ctx, "create "+allowedSet+" hash:ip maxelem 8388608\n", "ipset", "restore"); err != nil {
		return err
	}
	return w.onNode(ctx, fmt.Sprintf(`*filter
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -d %s -p udp -m udp --dport 53 -j ACCEPT
-A FORWARD -m set --match-set %s dst -j ACCEPT
-A FORWARD -p tcp -j REJECT --reject-with tcp-reset
-A FORWARD -j REJECT
COMMIT
`, resolver, allowedSet), "iptables-restore")
}

// setUpQueue hands responses to a process that opens their addresses.
func setUpQueue(ctx context.Context, n *network, w *way, flags ...string) error {
	if err := allowBySet(ctx, w); err != nil {
		return err
	}
	// A response that comes before somebody reads the queue is lost.
	if err := n.startBaseline(ctx, w, append([]string{"queue", "-set", allowedSet, "-suffix", suffix}, flags...)...); err != nil {
		return err
	}
	return w.onNode(ctx, "", "iptables", "-t", "mangle", "-A", "FORWARD", "-s", resolver.String(), "-p", "udp", "--sport", "53", "-j", "NFQUEUE", "--queue-num", "0")
}

// setUpProxy has the client ask a proxy on the node.
func setUpProxy(ctx context.Context, n *network, w *way, flags ...string) error {
	if err := allowBySet(ctx, w); err != nil {
		return err
	}
	w.server = w.nodeAddress()
	args := []string{"proxy", "-set", allowedSet, "-suffix", suffix, "-listen", w.server.String() + ":53", "-upstream", resolver.String() + ":53"}
	return n.startBaseline(ctx, w, append(args, flags...)...)
}

func (n *network) startBaseline(ctx context.Context, w *way, args ...string) error {
	process, err := n.Start(ctx, w.node, w.node.Name, n.Program("baseline"), args...)
	if err != nil {
		return err
	}
	err = lab.Await(ctx, func() error {
		if !strings.Contains(process.ReadLog(), "ready") {
			return errors.New("it is not ready")
		}
		return nil
	}, process.Exited())
	if err != nil {
		return fmt.Errorf("start baseline: %w\n%s", err, process.ReadLog())
	}
	return nil
}

func setUpDnsmasqIPSet(ctx context.Context, n *network, w *way) error {
	if err := allowBySet(ctx, w); err != nil {
		return err
	}
	return n.startDnsmasq(ctx, w, "--ipset=/"+suffix+"/"+allowedSet)
}

func setUpDnsmasqNFT(ctx context.Context, n *network, w *way) error {
	err := w.onNode(ctx, fmt.Sprintf(`table ip bench {
	set %s { type ipv4_addr; }
	chain forward {
		type filter hook forward priority filter;
		ct state established,related accept
		ip daddr %s udp dport 53 accept
		ip daddr @%[1]s accept
		meta l4proto tcp reject with tcp reset
		reject
	}
}
`, allowedSet, resolver), "nft", "-f", "-")
	if err != nil {
		return err
	}
	return n.startDnsmasq(ctx, w, "--nftset=/"+suffix+"/4#ip#bench#"+allowedSet)
}

// startDnsmasq has the client ask dnsmasq on the node. It may have as many questions outstanding as it can.
func (n *network) startDnsmasq(ctx context.Context, w *way, set string) error {
	w.server = w.nodeAddress()
	process, err := n.Start(ctx, w.node, w.node.Name, "dnsmasq",
		"--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--bind-interfaces", "--user=root",
		"--pid-file="+filepath.Join(n.Dir, w.node.Name+".pid"), "--listen-address="+w.server.String(), "--server="+resolver.String(),
		"--dns-forward-max=10000", set)
	if err != nil {
		return err
	}
	return w.awaitAnswers(ctx, process)
}
