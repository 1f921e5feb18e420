package netfilter

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// nextPrefix is of the chains by which programs see questions and answers before they judge.
const nextPrefix = chainPrefix + "NEXT-"

// Overlap has the programs see questions and answers, before and besides the rules of another release, which
// stand as they are and judge. What the programs say has no effect. The next Ensure replaces all of it.
func (n *Netfilter) Overlap(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, f := range n.families {
		text, err := f.tools.save(ctx, "mangle")
		if err == nil {
			err = f.tools.restore(ctx, overlapTransaction(f.overlap, parseListing(text)))
		}
		if err != nil {
			return fmt.Errorf("overlap with the rules of another release in %s: %w", f.tools.protocol, err)
		}
	}
	return nil
}

// overlapTable is what mangle has of the rules that ask programs of DNS, without what follows from them.
func overlapTable(programs Programs, resolvers []netip.AddrPort) *table {
	const response = nextPrefix + "RESPONSE"
	answers := answerRules(programs, resolvers, response)
	t := &table{name: "mangle"}
	for _, h := range []struct {
		hook  string
		rules []string
	}{
		{"PREROUTING", queryRules(resolvers, "! -i lo "+remember(programs.DNSQueryForwarded), transports)},
		{"OUTPUT", queryRules(resolvers, remember(programs.DNSQueryLocal), transports)},
		{"INPUT", answers},
		{"POSTROUTING", append([]string{learnedInInput}, answers...)},
	} {
		t.chain(nextPrefix+h.hook, h.rules)
		t.jumps = append(t.jumps, jump{hook: h.hook, rule: comment("learn before the rules of another release judge no longer") + " -j " + nextPrefix + h.hook})
	}
	t.chain(response, []string{program(programs.DNSResponse) + " " + comment("learn from answers")})
	return t
}

// overlapTransaction adds the chains and puts their jumps first, once.
func overlapTransaction(t *table, have listing) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%s\n", t.name)
	for _, c := range t.chains {
		fmt.Fprintf(&b, ":%s - [0:0]\n", c.name)
	}
	for _, c := range t.chains {
		for _, rule := range c.rules {
			fmt.Fprintf(&b, "-A %s %s\n", c.name, rule)
		}
	}
	for _, j := range t.jumps {
		for position, rule := range slices.Backward(have[j.hook]) {
			if strings.HasPrefix(target(rule), nextPrefix) {
				b.WriteString(deletion(j.hook, position, rule))
			}
		}
		fmt.Fprintf(&b, "-I %s 1 %s\n", j.hook, j.rule)
	}
	b.WriteString("COMMIT\n")
	return b.String()
}

// InUse is what judges: rules of ours, of any release and in both backends, but for those by which programs only
// see questions and answers.
type InUse struct {
	Pins []string
	// Rules is another text when any of the rules is, or what packets meet before them.
	Rules string
}

// ProgramsInUse returns what judges. A backend that is not installed holds nothing.
func ProgramsInUse(ctx context.Context) (InUse, error) {
	var found InUse
	var errs []error
	for _, backend := range []string{NFT, Legacy} {
		for _, p := range protocols() {
			t, err := findTools(ctx, p, backend)
			if err != nil {
				continue
			}
			for _, table := range []string{"mangle", "filter"} {
				rules, err := t.judging(ctx, backend, table)
				errs = append(errs, err)
				for _, rule := range rules {
					found.Pins = append(found.Pins, pinsOf(rule)...)
					found.Rules += fmt.Sprintln(backend, p, table, rule)
				}
			}
		}
	}
	slices.Sort(found.Pins)
	found.Pins = slices.Compact(found.Pins)
	return found, errors.Join(errs...)
}

// judging returns the rules of a table by which packets are judged, with their chains, and those before them.
func (t tools) judging(ctx context.Context, backend, table string) ([]string, error) {
	tables, err := t.tables(ctx, backend)
	if err != nil || !slices.Contains(tables, table) {
		return nil, err
	}
	text, err := t.save(ctx, table)
	if err != nil {
		return nil, err
	}
	var judging []string
	have := parseListing(text)
	for _, chain := range slices.Sorted(maps.Keys(have)) {
		if strings.HasPrefix(chain, nextPrefix) {
			continue
		}
		have[chain] = slices.DeleteFunc(have[chain], func(rule string) bool { return strings.HasPrefix(target(rule), nextPrefix) })
		rules := have[chain]
		if !ours(chain) {
			jumps := have.jumps(chain)
			if len(jumps) == 0 {
				continue
			}
			rules = rules[:jumps[len(jumps)-1]+1]
		}
		for _, rule := range rules {
			judging = append(judging, chain+" "+rule)
		}
	}
	return judging, nil
}

// pinsOf returns what a rule names behind --object-pinned.
func pinsOf(rule string) []string {
	var pins []string
	fields := strings.Fields(rule)
	for i, field := range fields[:max(len(fields)-1, 0)] {
		if field == "--object-pinned" {
			pins = append(pins, fields[i+1])
		}
	}
	return pins
}
