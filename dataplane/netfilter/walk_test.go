package netfilter

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A walk takes a packet through rules, as the kernel does.
type walk struct {
	rules map[string][][]string // by chain, without comments
	deny  bool                  // what the programs that judge say

	packet packet
	called []string // programs, by their pins
	marked bool
}

// packet is what rules look at.
type packet struct {
	transport        string
	opens            bool // with SYN alone
	from, to         int  // ports
	resolver         bool // goes to one that is trusted
	node, loopback   bool // goes to the node, or over lo
	state            string
	reply            bool
	cut, allowed     bool // by labels
	origFrom, origTo int  // ports of who spoke first
}

func (p packet) tracked() bool { return p.state != "INVALID" && p.state != "UNTRACKED" }

func (p packet) established() bool { return p.state == "ESTABLISHED" || p.state == "RELATED" }

func (p packet) asks() bool { return p.transport != "icmp" && p.to == dnsPort }

// options are what matches ask. Where there is no connection, what is asked of it is not so.
var options = map[string]func(p packet, want string) bool{
	"-m":              func(packet, string) bool { return true },
	"-p":              func(p packet, want string) bool { return p.transport == want },
	"-i":              func(p packet, _ string) bool { return p.loopback },
	"-o":              func(p packet, _ string) bool { return p.loopback },
	"-d":              func(p packet, _ string) bool { return p.resolver },
	"--tcp-flags":     func(p packet, _ string) bool { return p.opens },
	"--dport":         func(p packet, want string) bool { return strconv.Itoa(p.to) == want },
	"--dst-type":      func(p packet, _ string) bool { return p.node },
	"--ctstate":       func(p packet, want string) bool { return slices.Contains(strings.Split(want, ","), p.state) },
	"--ctstatus":      func(p packet, _ string) bool { return p.established() },
	"--ctdir":         func(p packet, want string) bool { return p.tracked() && p.reply == (want == "REPLY") },
	"--ctorigsrcport": func(p packet, want string) bool { return p.tracked() && strconv.Itoa(p.origFrom) == want },
	"--ctorigdstport": func(p packet, want string) bool { return p.tracked() && strconv.Itoa(p.origTo) == want },
	"--label": func(p packet, want string) bool {
		return p.tracked() && (p.cut && want == strconv.Itoa(cutLabel) || p.allowed && want == strconv.Itoa(acceptedLabel))
	},
}

func newWalk(t *table, deny bool) *walk {
	w := &walk{rules: map[string][][]string{}, deny: deny}
	for _, c := range t.chains {
		for _, rule := range c.rules {
			before, rest, _ := strings.Cut(rule, `-m comment --comment "`)
			_, after, _ := strings.Cut(rest, `"`)
			w.rules[c.name] = append(w.rules[c.name], strings.Fields(strings.ReplaceAll(before+after, `"`, "")))
		}
	}
	return w
}

// of takes a packet through the rules of a hook, and returns the verdict.
func (w *walk) of(hook string, p packet) string {
	w.packet, w.called, w.marked = p, nil, false
	return w.through(chainPrefix + hook)
}

// through returns the verdict of a chain; nothing if the packet comes back.
func (w *walk) through(chain string) string {
	for _, rule := range w.rules[chain] {
		jump, target := w.target(rule)
		switch {
		case target == "":
		case target == "RETURN":
			return ""
		case target == "MARK":
			w.marked = true
		case w.rules[target] == nil:
			return target
		case jump == "-g":
			return w.through(target)
		default:
			if verdict := w.through(target); verdict != "" {
				return verdict
			}
		}
	}
	return ""
}

// target returns how a rule goes where, if all its matches hold.
func (w *walk) target(rule []string) (jump, target string) {
	for len(rule) > 0 {
		not := rule[0] == "!"
		if not {
			rule = rule[1:]
		}
		size := 2
		switch option := rule[0]; {
		case option == "-j" || option == "-g":
			return option, rule[1]
		case option == "--object-pinned":
			w.called = append(w.called, rule[1])
			if !w.deny || !strings.HasPrefix(rule[1], "egress") {
				return "", ""
			}
		case option == "--label" && len(rule) > 2 && rule[2] == "--set":
			size = 3 // matches where there is a connection, and nothing depends on it
		case options[option](w.packet, rule[1]) == not:
			return "", ""
		case option == "--tcp-flags":
			size = 3
		}
		rule = rule[size:]
	}
	return "", ""
}

// everyPacket gives one of each kind that the rules of PREROUTING and OUTPUT tell apart, whether or not it can be.
func everyPacket(yield func(packet) bool) {
	for _, state := range []string{"NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED"} {
		for _, transport := range []string{"udp", "tcp", "opens", "icmp"} {
			for _, ports := range [][2]int{{40000, dnsPort}, {40000, 443}, {dnsPort, 40000}, {dnsPort, dnsPort}} {
				for bits := range 1 << 6 {
					is := func(bit int) bool { return bits>>bit&1 == 1 }
					p := packet{
						transport: transport, state: state, reply: is(0), cut: is(1), resolver: is(2), node: is(3), loopback: is(4), allowed: is(5),
						origFrom: ports[0], origTo: ports[1], from: ports[0], to: ports[1],
					}
					if transport == "opens" {
						p.transport, p.opens = "tcp", true
					}
					if p.reply {
						p.from, p.to = p.to, p.from
					}
					if !yield(p) {
						return
					}
				}
			}
		}
	}
}

// Rules take what is to be judged, and no rule takes the rest: so each packet is to be one or the other.
func TestWhatIsJudged(t *testing.T) {
	programs := Programs{
		DNSQueryForwarded: "query", DNSQueryLocal: "query", EgressForwarded: "egress", EgressLocal: "egress",
		AcceptForwarded: "accept", AcceptLocal: "accept", DNSResponse: "response", DNSUntrusted: "untrusted", DNSUnasked: "unasked",
	}
	resolvers := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53"), netip.MustParseAddrPort("[2001:db8::53]:53")}
	for _, cfg := range []Config{
		{AllowedTarget: Return, DeniedTarget: Reject},
		{AllowedTarget: Return, DeniedTarget: Drop},
		{AllowedTarget: Accept, DeniedTarget: Reject},
	} {
		cfg.Programs, cfg.Resolvers = programs, resolvers
		for _, p := range []protocol{ipv4, ipv6} {
			mangle := wantedTables(cfg, p)[0]
			for _, hook := range []string{"PREROUTING", "OUTPUT"} {
				allows, denies := newWalk(mangle, false), newWalk(mangle, true)
				for packet := range everyPacket {
					passed := packet.node || hook == "OUTPUT" && packet.loopback ||
						p == ipv4 && cfg.AllowedTarget == Return && packet.resolver && packet.asks() && !packet.opens
					judged := !passed && (packet.opens || !packet.established() || packet.cut && !packet.reply)
					asked := packet.asks() && (hook == "OUTPUT" || !packet.loopback)
					accepted := ""
					if cfg.AllowedTarget == Accept && hook == "OUTPUT" && packet.allowed && packet.tracked() && !packet.loopback &&
						(judged || packet.established() && !packet.cut && !packet.opens) {
						accepted = "ACCEPT"
					}
					if verdict := allows.of(hook, packet); verdict != accepted || slices.Contains(allows.called, "egress") != judged || slices.Contains(allows.called, "query") != asked {
						t.Fatalf("%s, %s, %s, allowed: %+v: got %q after %q, want %q, judged %v, asked %v", cfg.AllowedTarget, p, hook, packet, verdict, allows.called, accepted, judged, asked)
					}
					verdict := denies.of(hook, packet)
					if stopped := verdict == "DROP" || denies.marked && cfg.DeniedTarget == Reject; stopped != judged {
						t.Fatalf("%s, %s, %s, denied: %+v: got %q, marked %v, want stopped %v", cfg.DeniedTarget, p, hook, packet, verdict, denies.marked, judged)
					}
				}
			}
		}
	}
}
