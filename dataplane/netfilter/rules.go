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

// learnedInInput is of a packet over lo, which comes to INPUT too, where no packet has a device to go out by.
var learnedInInput = "-o lo " + comment("learned in INPUT") + " -j RETURN"

// transports are those of DNS, as iptables calls them.
var transports = []string{"udp", "tcp"}

// Names of chains that are no hook's.
const (
	queryChain     = chainPrefix + "QUERY"           // segments that open a connection to ask by go there
	queryForwarded = chainPrefix + "QUERY-FORWARDED" // and other questions there, if they pass through
	queryLocal     = chainPrefix + "QUERY-LOCAL"     // and those of the node itself
	answerChain    = chainPrefix + "ANSWER"          // and what may be an answer there
	responseChain  = chainPrefix + "RESPONSE"
	synForwarded   = chainPrefix + "SYN-FORWARDED" // segments that open a connection, and pass through
	synLocal       = chainPrefix + "SYN-LOCAL"     // and those of the node itself
	newForwarded   = chainPrefix + "NEW-FORWARDED" // what is of no established connection, and passes through
	newLocal       = chainPrefix + "NEW-LOCAL"     // and what is the node's own
	cutForwarded   = chainPrefix + "CUT-FORWARDED" // packets of connections that are cut, and pass through
	cutLocal       = chainPrefix + "CUT-LOCAL"     // and those of the node itself
	denyChain      = chainPrefix + "DENY"          // in mangle: what is denied goes there
	refuseChain    = chainPrefix + "REFUSE"        // in mangle: and a question that is refused there
	labelledChain  = chainPrefix + "LABELLED"      // in filter: what has the label of a denial goes there
	deniedChain    = chainPrefix + "DENIED"        // in filter: and comes back there
)

// Bits of a connection's label. No rule clears or copies one, while many scripts write the whole mark of
// packets and connections.
const (
	deniedLabel   = 127 // denied
	cutLabel      = 126 // established, and no longer allowed: the agent sets it, and clears both
	acceptedLabel = 125 // a policy allowed it, and --allowed-target is ACCEPT
	reopenedLabel = 124 // denied, and then opened anew on the same ports, and allowed: the denial counts no more
)

// wantedTables returns the rules of one family, as iptables prints them: `-A` and the chain left out,
// options in the order in which iptables lists them.
func wantedTables(cfg Config, p protocol) []*table {
	return []*table{mangleTable(cfg, p, resolversOf(cfg, p)), filterTable(cfg, p)}
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

func mangleTable(cfg Config, p protocol, resolvers []netip.AddrPort) *table {
	t := &table{name: "mangle"}
	asked, unlessAsked := askedRules(cfg, p, resolvers)
	asking := comment("may be a question to a resolver")
	// A packet over lo was asked about in OUTPUT.
	askForwarded := "! -i lo " + remember(cfg.Programs.DNSQueryForwarded) + " -j " + refuseChain
	askLocal := remember(cfg.Programs.DNSQueryLocal) + " -j " + refuseChain
	judgeForwarded := append([]string{toNode(), program(cfg.Programs.EgressForwarded) + " " + comment("forwarded connection denied") + " -g " + denyChain},
		noteAccepted(cfg, cfg.Programs.AcceptForwarded)...)
	judgeLocal := append([]string{toNode(), program(cfg.Programs.EgressLocal) + " " + comment("connection of the node denied") + " -g " + denyChain},
		noteAccepted(cfg, cfg.Programs.AcceptLocal)...)
	acceptLocal := acceptRules(cfg, "")
	acceptKnown := acceptRules(cfg, "! -o lo "+established+" ")

	t.hook("PREROUTING", slices.Concat([]string{opens(synForwarded)}, queryRules(resolvers, asking+" -g "+queryForwarded, transports), restRules("", newForwarded, cutForwarded)))
	// Before loopback is passed over: a resolver on the node itself may be trusted.
	t.hook("OUTPUT", slices.Concat([]string{opens(synLocal)}, queryRules(resolvers, asking+" -g "+queryLocal, transports), acceptKnown, restRules("", newLocal, cutLocal)))
	if rules := acceptRules(cfg, ""); len(rules) > 0 {
		t.hook("FORWARD", rules)
	}
	t.hook("INPUT", mayAnswerRules(resolvers))
	t.hook("POSTROUTING", mayAnswerRules(resolvers))
	t.chain(queryChain, []string{askForwarded})
	t.chain(queryForwarded, slices.Concat([]string{askForwarded}, asked, restRules(unlessAsked, newForwarded, cutForwarded)))
	t.chain(queryLocal, slices.Concat([]string{askLocal}, asked, acceptKnown, restRules(unlessAsked, newLocal, cutLocal)))
	t.chain(answerChain, append([]string{learnedInInput}, answerRules(cfg.Programs, resolvers, responseChain)...))
	t.chain(responseChain, []string{program(cfg.Programs.DNSResponse) + " " + comment("learn from answers; hold back what TCP is to send again") + " -j DROP"})
	t.chain(synForwarded, slices.Concat(queryRules(resolvers, asking+" -j "+queryChain, []string{"tcp"}), judgeForwarded, []string{reopened}))
	t.chain(synLocal, slices.Concat(queryRules(resolvers, askLocal, []string{"tcp"}), []string{loopback}, judgeLocal, []string{reopened}, acceptLocal))
	t.chain(newForwarded, judgeForwarded)
	t.chain(newLocal, slices.Concat([]string{loopback}, judgeLocal, acceptLocal))
	t.chain(cutForwarded, append([]string{repliesPass}, judgeForwarded...))
	t.chain(cutLocal, slices.Concat([]string{loopback, repliesPass}, judgeLocal, acceptLocal))
	t.chain(denyChain, denyRules(cfg))
	t.chain(refuseChain, refuseRules(cfg))
	return t
}

// established is what most packets are. What conntrack knows nothing of, or calls invalid, is not.
const (
	established    = "-m conntrack --ctstate RELATED,ESTABLISHED"
	notEstablished = "-m conntrack ! --ctstate RELATED,ESTABLISHED"
)

// repliesPass is of connections that are cut: they are judged on the side of who opened them.
var repliesPass = established + " --ctdir REPLY " + comment("replies are no egress") + " -j RETURN"

// loopback passes over what stays on the node.
var loopback = "-o lo " + comment("loopback is no egress") + " -j RETURN"

// syn is a TCP segment that opens a connection.
const syn = "-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN"

// opens sends such segments to where they are judged, whatever the kernel takes them for. On the ports of a connection
// that it still has in its table, in either direction, it does not always see a new one.
func opens(chain string) string { return syn + " " + comment("opens a connection") + " -g " + chain }

// reopened has a connection that is opened on the ports of one that was denied, and is allowed, not be taken for that
// one: no rule can take its label back.
var reopened = fmt.Sprintf("-m connlabel --label \"%d\" -m connlabel --label \"%d\" --set %s", deniedLabel, reopenedLabel, comment("allowed after a denial"))

// restRules find what is judged behind segments and questions: what is of no established connection, and what is of one
// that is cut; unless it is what a match says. All else is taken by no rule: one that takes a packet costs it a comment
// and more.
func restRules(unless, toNew, toCut string) []string {
	return []string{
		fmt.Sprintf("%s%s %s -g %s", unless, notEstablished, comment("of no established connection"), toNew),
		fmt.Sprintf("%s-m connlabel --label \"%d\" %s -g %s", unless, cutLabel, comment("established, and cut"), toCut),
	}
}

// askedRules let what goes to a trusted resolver pass, once its question was looked at: that no policy may stop it is
// what the programs which judge would find out too. Those deny a packet of IPv6 whose headers they cannot read, and
// so does a question in it not get past the rules that refuse it: there they are asked. And so they are where what is
// allowed is to be accepted. Of resolvers on one port, the last has no rule: those behind take nothing that goes there
// (unless).
func askedRules(cfg Config, p protocol, resolvers []netip.AddrPort) (rules []string, unless string) {
	if cfg.AllowedTarget == Accept || p != ipv4 || len(resolvers) == 0 {
		return nil, ""
	}
	const passed = "no policy stops what goes to a trusted resolver"
	alike := len(ports(resolvers)) == 1 // then the port is known
	for i, r := range resolvers {
		to := "-d " + netip.PrefixFrom(r.Addr(), r.Addr().BitLen()).String()
		switch {
		case alike && i == len(resolvers)-1:
			return rules, "! " + to + " "
		case alike:
			rules = append(rules, to+" "+comment(passed)+" -j RETURN")
		default:
			for _, transport := range transports {
				rules = append(rules, fmt.Sprintf("%s -p %[2]s -m %[2]s --dport %[3]d %[4]s -j RETURN", to, transport, r.Port(), comment(passed)))
			}
		}
	}
	return rules, ""
}

func toNode() string {
	return "-m addrtype --dst-type LOCAL " + comment("addresses of the node are no egress") + " -j RETURN"
}

// queryRules remember what resolvers are asked. A question that is refused is always rejected: nobody is
// to wait for an answer that will not come.
func queryRules(resolvers []netip.AddrPort, remember string, over []string) []string {
	var rules []string
	for _, port := range ports(resolvers) {
		for _, transport := range over {
			rules = append(rules, fmt.Sprintf("-p %[1]s -m %[1]s --dport %[2]d %[3]s", transport, port, remember))
		}
	}
	return rules
}

// mayAnswerRules find, with as few matches as there are, what answerRules look at: datagrams that come from where
// resolvers answer, which most answers are and conntrack need not be asked of, and replies to questions.
func mayAnswerRules(resolvers []netip.AddrPort) []string {
	var rules []string
	asked := ports(resolvers)
	for _, port := range asked {
		rules = append(rules, fmt.Sprintf("-p udp -m udp --sport %d %s -g %s", port, comment("from where resolvers answer"), answerChain))
	}
	for _, port := range withDNSPort(asked) {
		rules = append(rules, fmt.Sprintf("-m conntrack --ctorigdstport %d --ctdir REPLY %s -g %s", port, comment("may be an answer"), answerChain))
	}
	return rules
}

// denyRules see to it that a packet does not pass, and nothing more is asked of it: dropped at once where nobody is to be
// told, else noted
// for filter, which alone can reject. A packet that conntrack knows nothing of is dropped too: there is
// no connection to label, and a reset would end the one that it only seems to belong to. The label is for
// connections that do not exist yet, and so goes with the packet, and for those that are cut.
func denyRules(cfg Config) []string {
	if cfg.DeniedTarget == Drop {
		return []string{comment("denied") + " -j DROP"}
	}
	return append([]string{
		"-m conntrack --ctstate INVALID,UNTRACKED " + comment("denied, and of no connection") + " -j DROP",
		fmt.Sprintf("-m connlabel --label \"%d\" %s -j DROP", reopenedLabel, comment("denied again: no label is left to say it")),
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

// noteRules note a denial for filter. One that is opened on the ports of a connection that is there has but the label
// of that.
func noteRules(cfg Config) []string {
	return []string{
		fmt.Sprintf("%s -m connlabel --label \"%d\" --set %s", syn, deniedLabel, comment("remember the denial")),
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
		fmt.Sprintf("-m connlabel --label \"%d\" %s -j %s", deniedLabel, comment("denied, whatever became of the mark"), labelledChain),
	}
	t := &table{name: "filter"}
	accepted := slices.Concat(denied, acceptRules(cfg, ""))
	t.hook("INPUT", denied) // questions to a resolver on the node
	t.hook("FORWARD", accepted)
	t.hook("OUTPUT", accepted)
	t.chain(labelledChain, []string{
		fmt.Sprintf("-m connlabel --label \"%d\" %s -j RETURN", reopenedLabel, comment("allowed since")),
		syn + " " + comment("denied, in either direction") + " -j " + deniedChain,
		// Of one direction alone: the answer that rejects belongs to the same connection.
		"-p tcp -m tcp --tcp-flags RST RST -m conntrack --ctstate RELATED " + comment("rejects what the other side may not open") + " -j RETURN",
		"-m conntrack --ctdir ORIGINAL " + comment("denied") + " -j " + deniedChain,
	})
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

func withDNSPort(ports []uint16) []uint16 {
	if slices.Contains(ports, dnsPort) {
		return ports
	}
	return append(slices.Clone(ports), dnsPort)
}

func remember(pin string) string {
	return program(pin) + " " + comment("remember questions to resolvers")
}

func program(pin string) string { return "-m bpf --object-pinned " + pin }

// comment says in the listing what a rule is for. It is a match that the kernel calls like any other, if those before
// it match, and so comes last.
func comment(text string) string { return `-m comment --comment "` + commentPrefix + text + `"` }
