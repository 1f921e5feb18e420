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

// learnedInInput is of a packet over lo, which comes to INPUT and POSTROUTING.
var learnedInInput = "-o lo " + comment("learned in INPUT") + " -j RETURN"

// transports are those of DNS, as iptables calls them.
var transports = [...]string{"udp", "tcp"}

// Names of chains that are no hook's.
const (
	responseChain = chainPrefix + "RESPONSE"
	denyChain     = chainPrefix + "DENY"   // in mangle: what is denied goes there
	refuseChain   = chainPrefix + "REFUSE" // in mangle: and a question that is refused there
	deniedChain   = chainPrefix + "DENIED" // in filter: and comes back there
)

// Bits of a connection's label. No rule clears or copies one, while many scripts write the whole mark of
// packets and connections.
const (
	deniedLabel   = 127 // denied
	cutLabel      = 126 // established, and no longer allowed: the agent sets it, and clears both
	acceptedLabel = 125 // a policy allowed it, and --allowed-target is ACCEPT
)

// wantedTables returns the rules of one family, as iptables prints them: `-A` and the chain left out,
// options in the order in which iptables lists them.
func wantedTables(cfg Config, p protocol) []*table {
	return []*table{mangleTable(cfg, resolversOf(cfg, p)), filterTable(cfg, p)}
}

// resolversOf returns the resolvers of a family, each once and in order.
func resolversOf(cfg Config, p protocol) (resolvers []netip.AddrPort) {
	for _, r := range cfg.Resolvers {
		r = netip.AddrPortFrom(r.Addr().Unmap().WithZone(""), r.Port())
		if r.Addr().Is4() == (p == ipv4) && !slices.Contains(resolvers, r) {
			resolvers = append(resolvers, r)
		}
	}
	slices.SortFunc(resolvers, netip.AddrPort.Compare)
	return resolvers
}

func mangleTable(cfg Config, resolvers []netip.AddrPort) *table {
	established := fmt.Sprintf("-m conntrack --ctstate RELATED,ESTABLISHED -m connlabel ! --label \"%d\" %s -j RETURN",
		cutLabel, comment("only new connections are judged"))
	// The other side of one that is cut is no workload's egress.
	replies := "-m conntrack --ctstate RELATED,ESTABLISHED --ctdir REPLY " + comment("and those that are cut") + " -j RETURN"
	toNode := "-m addrtype --dst-type LOCAL " + comment("addresses of the node are no egress") + " -j RETURN"
	loopback := "-o lo " + comment("loopback is no egress") + " -j RETURN"
	deny, refuse := "-j "+denyChain, " -j "+refuseChain
	answers := answerRules(cfg.Programs, resolvers, responseChain)

	t := &table{name: "mangle"}
	// A packet over lo was asked about in OUTPUT.
	t.hook("PREROUTING", slices.Concat(queryRules(resolvers, "! -i lo ", cfg.Programs.DNSQueryForwarded, refuse),
		[]string{established, replies, toNode, program(cfg.Programs.EgressForwarded) + " " + comment("forwarded connection denied") + " " + deny},
		noteAccepted(cfg, cfg.Programs.AcceptForwarded)))
	// Before loopback is passed over: a resolver on the node itself may be trusted.
	t.hook("OUTPUT", slices.Concat(queryRules(resolvers, "", cfg.Programs.DNSQueryLocal, refuse),
		[]string{loopback}, acceptRules(cfg, "-m conntrack --ctstate RELATED,ESTABLISHED "),
		[]string{established, replies, toNode, program(cfg.Programs.EgressLocal) + " " + comment("connection of the node denied") + " " + deny},
		noteAccepted(cfg, cfg.Programs.AcceptLocal), acceptRules(cfg, "")))
	if rules := acceptRules(cfg, ""); len(rules) > 0 {
		t.hook("FORWARD", rules)
	}
	t.hook("INPUT", answers)
	t.hook("POSTROUTING", append([]string{learnedInInput}, answers...))
	t.chain(responseChain, []string{program(cfg.Programs.DNSResponse) + " " + comment("learn from answers; hold back what TCP is to send again") + " -j DROP"})
	t.chain(denyChain, denyRules(cfg))
	t.chain(refuseChain, refuseRules(cfg))
	return t
}

// queryRules remember what resolvers are asked. A question that is refused is always rejected: nobody is
// to wait for an answer that will not come.
func queryRules(resolvers []netip.AddrPort, from, pin, target string) []string {
	var rules []string
	for _, port := range ports(resolvers) {
		for _, transport := range transports {
			rules = append(rules, fmt.Sprintf("%[1]s-p %[2]s -m %[2]s --dport %[3]d %[4]s %[5]s%[6]s", from, transport, port,
				program(pin), comment("remember questions to resolvers"), target))
		}
	}
	return rules
}

// denyRules see to it that a packet does not pass: dropped at once where nobody is to be told, else noted
// for filter, which alone can reject. A packet that conntrack knows nothing of is dropped too: there is
// no connection to label, and a reset would end the one that it only seems to belong to. The label is for
// connections that do not exist yet, and so goes with the packet, and for those that are cut.
func denyRules(cfg Config) []string {
	if cfg.DeniedTarget == Drop {
		return []string{comment("denied") + " -j DROP"}
	}
	return append([]string{
		"-m conntrack --ctstate INVALID,UNTRACKED " + comment("denied, and of no connection") + " -j DROP",
		fmt.Sprintf("-m connlabel --label \"%d\" -m connlabel --label \"%d\" --set %s", cutLabel, deniedLabel, comment("remember the denial")),
	}, noteRules(cfg)...)
}

// refuseRules reject the packet of a question. Over TCP the connection ends with it, and is labelled though it
// exists already: rules of others may write the whole mark.
func refuseRules(cfg Config) []string {
	return append([]string{
		fmt.Sprintf("-p tcp -m connlabel --label \"%d\" --set %s", deniedLabel, comment("remember the refusal")),
	}, noteRules(cfg)...)
}

// noteRules note a denial for filter.
func noteRules(cfg Config) []string {
	return []string{
		fmt.Sprintf("-m conntrack ! --ctstatus CONFIRMED -m connlabel --label \"%d\" --set %s", deniedLabel, comment("remember the denial")),
		fmt.Sprintf("%s -j MARK --set-xmark %#x/%#x", comment("denied"), cfg.Mark, cfg.Mark),
	}
}

// noteAccepted remembers of a new connection that a policy allows it. None of this is there unless asked
// for: where the node's other rules decide, nobody wants to know.
func noteAccepted(cfg Config, pin string) []string {
	if cfg.AllowedTarget != Accept {
		return nil
	}
	return []string{fmt.Sprintf("%s -m connlabel --label \"%d\" --set %s", program(pin), acceptedLabel, comment("allowed by a policy"))}
}

// acceptRules let connections that a policy allowed past the other rules of the table. What is denied has
// gone to filter with its mark or label, or was dropped. One that is cut is judged first.
func acceptRules(cfg Config, state string) []string {
	if cfg.AllowedTarget != Accept {
		return nil
	}
	if state != "" {
		state += fmt.Sprintf("-m connlabel ! --label \"%d\" ", cutLabel)
	}
	return []string{fmt.Sprintf("%s-m connlabel --label \"%d\" %s -j ACCEPT", state, acceptedLabel, comment("allowed by a policy"))}
}

// answerRules goes by what the client asked (the original destination): behind DNAT the answer comes
// from another address. An answer of a trusted resolver does not come back from the chain to which
// it goes, and so does not reach the rules behind.
//
// Where the first packet of a flow came from the resolver, conntrack takes the client's question for the
// reply: an answer that outlived its flow began it, or one that somebody sent in the resolver's name. What
// the resolver sends after the client did is read like other answers.
func answerRules(programs Programs, resolvers []netip.AddrPort, to string) []string {
	var rules []string
	for _, transport := range transports {
		for _, r := range resolvers {
			rules = append(rules, fmt.Sprintf("-p %s -m conntrack --ctstate ESTABLISHED --ctorigdst %s --ctorigdstport %d --ctdir REPLY %s -g %s",
				transport, r.Addr(), r.Port(), comment("answer of a trusted resolver"), to))
			if transport == "udp" {
				rules = append(rules, flippedRules(programs, r, to)...)
			}
		}
		rules = append(rules, fmt.Sprintf("-p %s -m conntrack --ctorigdstport %d --ctdir REPLY %s %s",
			transport, dnsPort, program(programs.DNSUntrusted), comment("answer of another resolver")))
	}
	return rules
}

// flippedRules are those of a flow that the resolver began.
func flippedRules(programs Programs, r netip.AddrPort, to string) []string {
	from := fmt.Sprintf("-s %s -p udp -m udp --sport %d -m conntrack", netip.PrefixFrom(r.Addr(), r.Addr().BitLen()), r.Port())
	return []string{
		fmt.Sprintf("%s --ctstate ESTABLISHED --ctdir ORIGINAL %s -g %s", from, comment("answer of a trusted resolver, who spoke first"), to),
		fmt.Sprintf("%s --ctdir ORIGINAL %s %s", from, program(programs.DNSUnasked), comment("answer that nobody asked for")),
	}
}

func filterTable(cfg Config, p protocol) *table {
	denied := []string{
		fmt.Sprintf("-m mark --mark %#x/%#x %s -j %s", cfg.Mark, cfg.Mark, comment("denied"), deniedChain),
		// Of one direction alone: the answer that rejects belongs to the same connection.
		fmt.Sprintf("-m connlabel --label \"%d\" -m conntrack --ctdir ORIGINAL %s -j %s", deniedLabel, comment("denied, whatever became of the mark"), deniedChain),
	}
	t := &table{name: "filter"}
	accepted := slices.Concat(denied, acceptRules(cfg, ""))
	t.hook("INPUT", denied) // questions to a resolver on the node
	t.hook("FORWARD", accepted)
	t.hook("OUTPUT", accepted)
	t.chain(deniedChain, []string{
		"-p tcp " + comment("denied") + " -j REJECT --reject-with tcp-reset",
		comment("denied") + " -j REJECT --reject-with " + p.portUnreachable(),
	})
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
