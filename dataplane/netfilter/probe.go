package netfilter

import (
	"context"
	"fmt"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Requirement is one thing that the node needs for the rules, and whether it has it.
type Requirement struct {
	Name   string
	Met    bool
	Detail string // what was found
	Remedy string // what to do; empty when met
}

// probedMatch is an extension that the rules use, with a rule that shows whether it works.
type probedMatch struct{ name, module, table, rule string }

// probedMatches are all of them; those of a table stand together.
var probedMatches = []probedMatch{
	{"conntrack match", "xt_conntrack", "mangle", "-m conntrack --ctstate ESTABLISHED --ctorigdstport 53 --ctdir REPLY"},
	{"addrtype match", "xt_addrtype", "mangle", "-m addrtype --dst-type LOCAL -j RETURN"},
	{"bpf match", "xt_bpf", "mangle", `-m bpf --bytecode "1,6 0 0 0"`},
	{"mark match and target", "xt_mark", "mangle", "-m mark --mark 0x1/0x1 -j MARK --set-xmark 0x1/0x1"},
	{"connlabel match", "xt_connlabel", "mangle", fmt.Sprintf(`-m conntrack ! --ctstatus CONFIRMED -m connlabel --label %d --set`, deniedLabel)},
	{"comment match", "xt_comment", "mangle", `-m comment --comment "nameward: probe"`},
	{"reject target", "ipt_REJECT or ip6t_REJECT", "filter", "-p tcp -j REJECT --reject-with tcp-reset"},
}

// Probe checks, by doing it, whether the node can hold the rules. The rules are written in a network
// namespace that exists only for this: the node's tables stay untouched.
func Probe(ctx context.Context, backend string) []Requirement {
	chosen, err := chooseBackend(ctx, backend)
	if err != nil {
		return []Requirement{{Name: "iptables", Detail: err.Error(), Remedy: "install iptables 1.8 or later"}}
	}
	results := []Requirement{{Name: "iptables", Met: true, Detail: chosen + " backend"}}
	for _, p := range protocols() {
		t, err := findTools(ctx, p, chosen)
		if err != nil {
			results = append(results, Requirement{Name: string(p), Detail: err.Error(), Remedy: "install iptables 1.8 or later"})
			continue
		}
		results = append(results, t.probePinned(ctx))
		results = append(results, t.probeMatches(ctx)...)
	}
	if len(protocols()) == 1 {
		results = append(results, Requirement{Name: string(ipv6), Met: true, Detail: "the kernel has no IPv6: IPv4 alone is enforced"})
	}
	return results
}

// probePinned asks the program, since only a pinned program could show it otherwise.
func (t tools) probePinned(ctx context.Context) Requirement {
	r := Requirement{Name: string(t.protocol) + " pinned programs", Remedy: "install iptables 1.8 or later, with its bpf extension"}
	text, err := run(ctx, "", t.main, "-m", "bpf", "--help")
	switch {
	case err != nil:
		r.Detail = err.Error()
	case !strings.Contains(text, "--object-pinned"):
		r.Detail = t.main + " knows no --object-pinned"
	default:
		r.Met, r.Detail, r.Remedy = true, t.main, ""
	}
	return r
}

func (t tools) probeMatches(ctx context.Context) []Requirement {
	done := make(chan []Requirement)
	go func() {
		// Never unlocked: the thread ends with the goroutine, and the namespace with the thread.
		runtime.LockOSThread()
		results := make([]Requirement, 0, len(probedMatches))
		unshareErr := unix.Unshare(unix.CLONE_NEWNET)
		whole := unshareErr == nil && t.restore(ctx, probeTransaction(probedMatches...)) == nil
		for _, m := range probedMatches {
			r := Requirement{Name: string(t.protocol) + " " + m.name, Met: true, Detail: m.module}
			var err error
			switch {
			case unshareErr != nil:
				err = fmt.Errorf("make a network namespace: %w", unshareErr)
			case !whole: // one by one, to tell which
				err = t.restore(ctx, probeTransaction(m))
			}
			if err != nil {
				r.Met, r.Detail = false, err.Error()
				r.Remedy = "run as root; have the kernel module " + m.module + " (on Debian: package linux-image, not a stripped kernel)"
			}
			results = append(results, r)
		}
		done <- results
	}()
	return <-done
}

// probeTransaction makes a chain with the rules of matches in each of their tables.
func probeTransaction(matches ...probedMatch) string {
	var b strings.Builder
	for i, m := range matches {
		if i == 0 || m.table != matches[i-1].table {
			if i > 0 {
				b.WriteString("COMMIT\n")
			}
			fmt.Fprintf(&b, "*%s\n:%sPROBE - [0:0]\n", m.table, chainPrefix)
		}
		fmt.Fprintf(&b, "-A %sPROBE %s\n", chainPrefix, m.rule)
	}
	return b.String() + "COMMIT\n"
}
