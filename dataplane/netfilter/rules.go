package netfilter

import (
	"fmt"
	"net/netip"
	"slices"
)

// Everything of ours begins so: chains in iptables, and the comments of rules.
const (
	chainPrefix   = "NAMEWARD-"
	commentPrefix = "nameward: "
)

const dnsPort = 53

// Names of chains that are no hook's.
const responseChain = chainPrefix + "RESPONSE"

// wantedTables returns the rules of one family, as iptables prints them: `-A` and the chain left out,
// options in the order in which iptables lists them.
func wantedTables(cfg Config, p protocol) []*table {
	var resolvers []netip.AddrPort
	for _, r := range cfg.Resolvers {
		r = netip.AddrPortFrom(r.Addr().Unmap().WithZone(""), r.Port())
		if r.Addr().Is4() == (p == ipv4) && !slices.Contains(resolvers, r) {
			resolvers = append(resolvers, r)
		}
	}
	slices.SortFunc(resolvers, netip.AddrPort.Compare)
	return []*table{mangleTable(cfg, resolvers), filterTable(cfg, p)}
}

func mangleTable(cfg Config, resolvers []netip.AddrPort) *table {
	var queries []string
	for _, port := range ports(resolvers) {
		queries = append(queries, fmt.Sprintf("-p udp -m udp --dport %d %s %s", port,
			program(cfg.Programs.DNSQuery), comment("remember questions to resolvers")))
	}
	established := "-m conntrack --ctstate RELATED,ESTABLISHED " + comment("only new connections are judged") + " -j RETURN"
	toNode := "-m addrtype --dst-type LOCAL " + comment("addresses of the node are no egress") + " -j RETURN"
	loopback := "-o lo " + comment("loopback is no egress") + " -j RETURN"
	mark := fmt.Sprintf("-j MARK --set-xmark %#x/%#x", cfg.Mark, cfg.Mark)
	answers := answerRules(cfg, resolvers)

	t := &table{name: "mangle"}
	t.hook("PREROUTING", append(slices.Clone(queries), established, toNode,
		program(cfg.Programs.EgressForwarded)+" "+comment("forwarded connection denied")+" "+mark))
	// Before loopback is passed over: a resolver on the node itself may be trusted.
	t.hook("OUTPUT", append(slices.Clone(queries), loopback, established, toNode,
		program(cfg.Programs.EgressLocal)+" "+comment("connection of the node denied")+" "+mark))
	t.hook("INPUT", answers)
	// A packet over lo comes to INPUT too.
	t.hook("POSTROUTING", append([]string{"-o lo " + comment("learned in INPUT") + " -j RETURN"}, answers...))
	t.chain(responseChain, []string{program(cfg.Programs.DNSResponse) + " " + comment("learn from answers")})
	return t
}

// answerRules goes by what the client asked (the original destination): behind DNAT the answer comes
// from another address. An answer of a trusted resolver does not come back from responseChain, which
// it goes to, and so does not reach the last rule.
func answerRules(cfg Config, resolvers []netip.AddrPort) []string {
	rules := make([]string, 0, len(resolvers)+1)
	for _, r := range resolvers {
		rules = append(rules, fmt.Sprintf("-p udp -m conntrack --ctstate ESTABLISHED --ctorigdst %s --ctorigdstport %d --ctdir REPLY %s -g %s",
			r.Addr(), r.Port(), comment("answer of a trusted resolver"), responseChain))
	}
	return append(rules, fmt.Sprintf("-p udp -m conntrack --ctorigdstport %d --ctdir REPLY %s %s",
		dnsPort, program(cfg.Programs.DNSUntrusted), comment("answer of another resolver")))
}

func filterTable(cfg Config, p protocol) *table {
	marked := fmt.Sprintf("-m mark --mark %#x/%#x %s", cfg.Mark, cfg.Mark, comment("denied"))
	denied := []string{marked + " -j DROP"}
	if cfg.DeniedTarget != Drop {
		denied = []string{
			"-p tcp " + marked + " -j REJECT --reject-with tcp-reset",
			marked + " -j REJECT --reject-with " + p.portUnreachable(),
		}
	}
	t := &table{name: "filter"}
	t.hook("FORWARD", denied)
	t.hook("OUTPUT", denied)
	return t
}

func ports(resolvers []netip.AddrPort) []uint16 {
	var ports []uint16
	for _, r := range resolvers {
		ports = append(ports, r.Port())
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

func program(pin string) string { return "-m bpf --object-pinned " + pin }

func comment(text string) string { return `-m comment --comment "` + commentPrefix + text + `"` }
