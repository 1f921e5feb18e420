package path

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/nameward/nameward/dataplane/netfilter"
)

// resolvers are those that the nodes trust.
var resolvers = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53"), netip.MustParseAddrPort("[2001:db8::53]:53")}

// mark is a bit that no rule but ours looks at.
const mark = 0x10000000

// hook puts the agent's rules on a node, which call given programs.
func hook(ctx context.Context, n *node, backend string, programs netfilter.Programs) error {
	return n.do(func() error {
		rules, err := netfilter.New(ctx, netfilter.Config{
			Backend: backend, Programs: programs, Resolvers: resolvers, Mark: mark,
			AllowedTarget: netfilter.Return, DeniedTarget: netfilter.Reject,
		})
		if err != nil {
			return err
		}
		_, err = rules.Ensure(ctx, func([]string) {})
		return err
	})
}

// hookEmpty puts the same rules there with programs that do nothing.
func hookEmpty(ctx context.Context, n *node, backend string) (netfilter.Programs, error) {
	var programs netfilter.Programs
	if err := n.do(func() (err error) {
		programs, err = emptyPrograms()
		return err
	}); err != nil {
		return programs, err
	}
	return programs, hook(ctx, n, backend, programs)
}

// stateRule is what every stateful firewall has.
const (
	stateRule = "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n"
	plainRule = "-A FORWARD " + stateRule
)

// restore writes rules into filter: the plain rule, and what comes behind it.
func restore(ctx context.Context, n *node, backend, behind string) error {
	return n.do(func() error {
		return run(ctx, "*filter\n"+plainRule+behind+"COMMIT\n", "iptables-"+backend+"-restore", "--noflush")
	})
}

// hookIPSets gives each domain set an ipset and a rule, as scripts do. What no rule accepts is dropped.
func hookIPSets(ctx context.Context, n *node, backend string, addresses []netip.Addr) error {
	var sets, rules strings.Builder
	for i, address := range addresses {
		fmt.Fprintf(&sets, "create s%[1]d hash:ip timeout 86400\nadd s%[1]d %[2]s\n", i, address)
		fmt.Fprintf(&rules, "-A FORWARD -m set --match-set s%d dst -j ACCEPT\n", i)
	}
	rules.WriteString("-A FORWARD -j DROP\n")
	if err := n.do(func() error { return run(ctx, sets.String(), "ipset", "restore") }); err != nil {
		return err
	}
	return restore(ctx, n, backend, rules.String())
}

// hookSetPrograms gives each domain set a program and a rule.
func hookSetPrograms(ctx context.Context, n *node, backend string, addresses []netip.Addr) error {
	var rules strings.Builder
	for i, address := range addresses {
		pin := filepath.Join(bpfDir, fmt.Sprintf("set-%d", i))
		if err := n.do(func() error { return pinSetProgram(pin, address) }); err != nil {
			return err
		}
		fmt.Fprintf(&rules, "-A FORWARD -m bpf --object-pinned %s -j ACCEPT\n", pin)
	}
	rules.WriteString("-A FORWARD -j DROP\n")
	return restore(ctx, n, backend, rules.String())
}
