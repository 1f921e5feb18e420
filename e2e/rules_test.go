package e2e_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// savedRules returns what a backend holds of both families: rules of ours, chain by chain, with the positions of
// our jumps and with programs in place of pins; and what is not ours, as it is printed.
func (f *fleet) savedRules(t *testing.T, backend string) (ours, theirs string) {
	t.Helper()
	var mine, others []string
	for _, program := range []string{"iptables-", "ip6tables-"} {
		out, err := f.Node.Command(t.Context(), program+backend+"-save").Output() // it warns beside
		if err != nil {
			t.Fatalf("list rules: %v", err)
		}
		table, position := "", map[string]int{}
		for line := range strings.Lines(string(out)) {
			fields := strings.Fields(line)
			switch {
			case strings.HasPrefix(line, "#"):
				continue
			case strings.HasPrefix(line, "*"):
				table = program + backend + " " + fields[0]
				clear(position)
			}
			switch declares, rule := fields[0][0] == ':', fields[0] == "-A"; {
			case rule && strings.Contains(line, "NAMEWARD-"):
				mine = append(mine, fmt.Sprintf("%s %s #%d %s", table, fields[1], position[fields[1]], strings.Join(withoutPins(fields), " ")))
			case rule:
				others = append(others, table+" #"+line)
			case declares && fields[1] != "ACCEPT" && !strings.Contains(line, "NAMEWARD-"): // a table with no more is not always printed
				others = append(others, fmt.Sprintln(table, "#", fields[0], fields[1]))
			}
			if fields[0] == "-A" {
				position[fields[1]]++
			}
		}
	}
	// What was made anew is printed in another order, and the rules of one chain are not.
	inOrder := func(a, b string) int { return strings.Compare(before(a, "#"), before(b, "#")) }
	slices.SortStableFunc(mine, inOrder)
	slices.SortStableFunc(others, inOrder)
	return strings.Join(mine, "\n"), strings.Join(others, "")
}

func before(text, separator string) string {
	first, _, _ := strings.Cut(text, separator)
	return first
}

// withoutPins has the names of programs where rules name pins, which differ from release to release.
func withoutPins(fields []string) []string {
	for i, field := range fields {
		if i > 0 && fields[i-1] == "--object-pinned" {
			program := filepath.Base(field)
			fields[i] = program[:strings.LastIndex(program, "-")]
		}
	}
	return fields
}

// bothFamilies changes the node's rules of IPv4 and IPv6.
func (f *fleet) bothFamilies(t *testing.T, backend string, changes ...string) {
	t.Helper()
	for _, program := range []string{"iptables-", "ip6tables-"} {
		for _, change := range changes {
			f.iptables(t, program+backend, change)
		}
	}
}

// restoreRules gives iptables-restore a text, of both families.
func (f *fleet) restoreRules(t *testing.T, backend, text string, flags ...string) {
	t.Helper()
	for _, program := range []string{"iptables-", "ip6tables-"} {
		f.restoreRulesOf(t, program+backend, text, flags...)
	}
}

func (f *fleet) restoreRulesOf(t *testing.T, program, text string, flags ...string) {
	t.Helper()
	cmd := f.Node.Command(t.Context(), program+"-restore", append([]string{"-w"}, flags...)...)
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s-restore: %v: %s", program, err, out)
	}
}
