package netfilter

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/nameward/nameward/dataplane/enforce"
)

// table is what is wanted in one iptables table.
type table struct {
	name   string
	chains []chain
	jumps  []jump
}

// chain is a chain of ours.
type chain struct {
	name     string
	rules    []string // as they are written
	accepted []string // as iptables printed them after they were written, where that differs
}

// jump is the first rule of a hook.
type jump struct {
	hook, rule string
	accepted   string // as iptables printed it
}

// chain adds a chain of ours.
func (t *table) chain(name string, rules []string) {
	t.chains = append(t.chains, chain{name: name, rules: rules})
}

// hook adds a chain of ours that a hook jumps to first.
func (t *table) hook(hook string, rules []string) {
	name := chainPrefix + hook
	t.chain(name, rules)
	t.jumps = append(t.jumps, jump{hook: hook, rule: "-j " + name})
}

// faults names what is not as wanted.
func (t *table) faults(have listing) []string {
	var faults []string
	for _, c := range t.chains {
		rules, exists := have[c.name]
		switch {
		case !exists:
			faults = append(faults, "chain "+c.name+" "+enforce.Missing)
		case len(rules) == 0 && len(c.rules) > 0:
			faults = append(faults, "content of chain "+c.name+" "+enforce.Missing)
		case !c.holds(rules):
			faults = append(faults, "chain "+c.name+" was changed")
		}
	}
	for _, j := range t.jumps {
		switch jumps := have.jumps(j.hook); {
		case j.stands(have, jumps):
		case len(jumps) == 0:
			faults = append(faults, "jump from "+j.hook+" "+enforce.Missing)
		default:
			faults = append(faults, "jump from "+j.hook+" was not the first rule, and the only one of its kind")
		}
	}
	for _, name := range t.strangers(have) {
		faults = append(faults, "chain "+name+" was left over")
	}
	return faults
}

// transaction is the input of iptables-restore that makes the table as wanted, in one step. With
// --noflush it empties the chains that it declares and leaves all others alone.
func (t *table) transaction(have listing) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%s\n", t.name)
	for _, c := range t.chains {
		fmt.Fprintf(&b, ":%s - [0:0]\n", c.name)
	}
	strangers := t.strangers(have)
	for _, name := range strangers {
		fmt.Fprintf(&b, ":%s - [0:0]\n", name)
	}
	for _, c := range t.chains {
		for _, rule := range c.rules {
			fmt.Fprintf(&b, "-A %s %s\n", c.name, rule)
		}
	}
	t.moveJumps(&b, have)
	for _, name := range strangers {
		fmt.Fprintf(&b, "-X %s\n", name)
	}
	b.WriteString("COMMIT\n")
	return b.String()
}

// moveJumps deletes every jump to a chain of ours that is not as wanted, whoever made it, and inserts
// those that are wanted and do not stand.
func (t *table) moveJumps(b *strings.Builder, have listing) {
	standing := map[string]bool{}
	for _, j := range t.jumps {
		standing[j.hook] = j.stands(have, have.jumps(j.hook))
	}
	for _, name := range slices.Sorted(maps.Keys(have)) {
		if ours(name) || standing[name] {
			continue
		}
		// From the last: a deletion moves up what is behind it.
		for _, position := range slices.Backward(have.jumps(name)) {
			b.WriteString(deletion(name, position, have[name][position]))
		}
	}
	for _, j := range t.jumps {
		if !standing[j.hook] {
			fmt.Fprintf(b, "-I %s 1 %s\n", j.hook, j.rule)
		}
	}
}

// deletion is the line that deletes a rule. It says the rule: others may have moved it since it was listed, and its
// number would be of a rule of theirs. One that calls a pinned program does not equal itself as it is printed.
func deletion(hook string, position int, rule string) string {
	if strings.Contains(rule, "--object-pinned ") {
		return fmt.Sprintf("-D %s %d\n", hook, position+1)
	}
	return fmt.Sprintf("-D %s %s\n", hook, rule)
}

// accept takes what iptables prints now, after the transaction, for what is wanted: another release may
// print an option in another way than it is written here.
func (t *table) accept(have listing) error {
	for i, c := range t.chains {
		rules := have[c.name]
		if len(rules) != len(c.rules) {
			return fmt.Errorf("chain %s holds %d rules after %d were written", c.name, len(rules), len(c.rules))
		}
		t.chains[i].accepted = rules
	}
	for i, j := range t.jumps {
		rules := have[j.hook]
		if len(rules) == 0 || target(rules[0]) != chainPrefix+j.hook {
			return fmt.Errorf("the first rule of %s is not the jump after it was written", j.hook)
		}
		t.jumps[i].accepted = rules[0]
	}
	return nil
}

// strangers are chains with our prefix that this build does not use: those of another release.
func (t *table) strangers(have listing) []string {
	var names []string
	for name := range have {
		if ours(name) && !slices.ContainsFunc(t.chains, func(c chain) bool { return c.name == name }) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (c chain) holds(rules []string) bool {
	return slices.Equal(rules, c.rules) || c.accepted != nil && slices.Equal(rules, c.accepted)
}

// stands reports whether the jump is the first rule of its hook, and the only one to a chain of ours.
func (j jump) stands(have listing, jumps []int) bool {
	if len(jumps) != 1 || jumps[0] != 0 {
		return false
	}
	first := have[j.hook][0]
	return first == j.rule || first == j.accepted
}

// listing is the chains of a table with their rules, as iptables-save prints them behind `-A CHAIN `.
type listing map[string][]string

func parseListing(text string) listing {
	l := listing{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if name, declares := strings.CutPrefix(line, ":"); declares {
			name, _, _ = strings.Cut(name, " ")
			l[name] = nil
		}
		if rule, appends := strings.CutPrefix(line, "-A "); appends {
			name, rule, _ := strings.Cut(rule, " ")
			l[name] = append(l[name], rule)
		}
	}
	return l
}

// jumps returns the positions, from 0, of the rules of a chain that go to a chain of ours.
func (l listing) jumps(name string) []int {
	var positions []int
	for i, rule := range l[name] {
		if ours(target(rule)) {
			positions = append(positions, i)
		}
	}
	return positions
}

// target returns the chain that a rule jumps or goes to; empty when to none.
func target(rule string) string {
	fields := strings.Fields(rule)
	if n := len(fields); n >= 2 && (fields[n-2] == "-j" || fields[n-2] == "-g") {
		return fields[n-1]
	}
	return ""
}

func ours(name string) bool { return strings.HasPrefix(name, chainPrefix) }
