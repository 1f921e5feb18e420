package netfilter

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/nameward/nameward/dataplane/preflight"
)

const installIPTables = "install iptables 1.8 or later"

// probedMatch is an extension that the rules use, with a rule that shows whether it works.
type probedMatch struct{ name, module, table, rule string }

var probedMatches = []probedMatch{
	{"conntrack match", "xt_conntrack", "mangle", "-m conntrack --ctstate ESTABLISHED --ctorigdstport 53 --ctdir REPLY"},
	{"addrtype match", "xt_addrtype", "mangle", "-m addrtype --dst-type LOCAL -j RETURN"},
	{"bpf match", "xt_bpf", "mangle", `-m bpf --bytecode "1,6 0 0 0"`},
	{"mark match and target", "xt_mark", "mangle", "-m mark --mark 0x1/0x1 -j MARK --set-xmark 0x1/0x1"},
	{"connlabel match", "xt_connlabel", "mangle", fmt.Sprintf(`-m conntrack ! --ctstatus CONFIRMED -m connlabel --label %d --set`, deniedLabel)},
	{"comment match", "xt_comment", "mangle", `-m comment --comment "nameward: probe"`},
	{"reject target", "ipt_REJECT or ip6t_REJECT", "filter", "-p tcp -j REJECT --reject-with tcp-reset"},
}

// Probe checks, by doing it, whether the node can hold the rules of a configuration, whose programs are all
// the one that is pinned for this; empty where none could be. The rules are written in a network namespace
// that exists only for this: the node's tables stay untouched. Where none can be made, iptables-restore
// rehearses them.
func Probe(ctx context.Context, cfg Config, pin string) []preflight.Requirement {
	backend, err := Choose(ctx, cfg.Backend)
	if err != nil {
		remedy := installIPTables
		if errors := err.Error(); strings.Contains(errors, "denied") || strings.Contains(errors, "permitted") {
			remedy = "run as root, or grant CAP_NET_ADMIN and, for iptables-legacy, CAP_NET_RAW"
		}
		return []preflight.Requirement{preflight.Fail("iptables", err.Error(), remedy)}
	}
	cfg.Programs = everyProgram(pin)
	results := []preflight.Requirement{preflight.Found("iptables", backend+" backend")}
	for _, p := range protocols() {
		t, err := findTools(ctx, p, backend)
		if err != nil {
			results = append(results, preflight.Fail(string(p), err.Error(), installIPTables))
			continue
		}
		results = append(results, (&family{tools: t, tables: wantedTables(cfg, p)}).probe(ctx, pin)...)
	}
	if len(protocols()) == 1 {
		results = append(results, preflight.Warn(string(ipv6), "the kernel has no IPv6: IPv4 alone is enforced",
			"nothing, if that is meant; else start the kernel without ipv6.disable=1"))
	}
	return results
}

// UsesLegacy reports whether iptables-legacy is used: by us, or by others.
func UsesLegacy(backend string) bool {
	if backend != Auto {
		return backend == Legacy
	}
	for _, file := range legacyNames {
		if names, err := os.ReadFile("/proc/thread-self/net/" + file); err == nil && len(names) > 0 {
			return true
		}
	}
	return false
}

func everyProgram(pin string) Programs {
	return Programs{
		DNSQueryForwarded: pin, DNSQueryLocal: pin, DNSResponse: pin, DNSUntrusted: pin, DNSUnasked: pin,
		EgressForwarded: pin, EgressLocal: pin, AcceptForwarded: pin, AcceptLocal: pin,
	}
}

func (f *family) probe(ctx context.Context, pin string) (results []preflight.Requirement) {
	scratch := inScratch(func() { results = f.probeWriting(ctx, pin) })
	if scratch != nil {
		results = f.probeRehearsing(ctx, pin)
	}
	return results
}

func (f *family) probeWriting(ctx context.Context, pin string) []preflight.Requirement {
	results := f.probeMatches(func(transaction string) error { return f.tools.restore(ctx, transaction) }, "")
	results = append(results, f.probeFragments(ctx))
	return append(results, f.probePinned(pin, "", func() error { return f.writeAll(ctx) }))
}

func (f *family) probeRehearsing(ctx context.Context, pin string) []preflight.Requirement {
	const how = " (rehearsed: this process may make no network namespace to write in)"
	results := f.probeMatches(func(transaction string) error { return f.tools.rehearse(ctx, transaction) }, how)
	return append(results, f.probePinned(pin, how, func() error { return f.rehearseAll(ctx) }))
}

func (f *family) name(what string) string { return string(f.tools.protocol) + " " + what }

func (f *family) probeMatches(try func(transaction string) error, how string) []preflight.Requirement {
	results := make([]preflight.Requirement, 0, len(probedMatches)+2)
	var all strings.Builder
	for _, m := range probedMatches {
		all.WriteString(probeChain(m.table, m.rule))
	}
	whole := try(all.String()) == nil // else one by one, to tell which
	for _, m := range probedMatches {
		var err error
		if !whole {
			err = try(probeChain(m.table, m.rule))
		}
		results = append(results, preflight.Judge(f.name(m.name), m.module+how, err,
			"run as root; have the kernel module "+m.module+" (on Debian: package linux-image, not a stripped kernel)"))
	}
	return results
}

// probePinned tries the whole of our rules, which call a pinned program.
func (f *family) probePinned(pin, how string, try func() error) preflight.Requirement {
	name, remedy := f.name("pinned programs"), installIPTables+", with its bpf extension"
	if pin == "" {
		return preflight.Fail(name, "not tried: no program is pinned", "see bpf file system, and capabilities")
	}
	return preflight.Judge(name, "all our rules"+how, try(), remedy)
}
