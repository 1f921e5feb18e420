package netfilter

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// foreignRule is a rule that somebody else made, as iptables-save prints it.
type foreignRule struct {
	protocol protocol
	backend  string
	table    string
	text     string // from `-A` on
}

// String names the rule so that it can be found.
func (r foreignRule) String() string {
	return fmt.Sprintf("%s-%s -t %s %s", r.protocol, r.backend, r.table, r.text)
}

// foreignRules returns the rules of a backend, of both families and all tables, that are not ours.
func foreignRules(ctx context.Context, backend string) ([]foreignRule, error) {
	var rules []foreignRule
	for _, p := range protocols() {
		t, err := findTools(ctx, p, backend)
		if err != nil {
			return nil, err
		}
		names, err := t.tables(ctx, backend)
		if err != nil {
			return nil, err
		}
		if len(names) == 0 {
			continue
		}
		text, err := run(ctx, "", t.saver) // all tables that exist, and makes none
		if err != nil {
			return nil, err
		}
		table := ""
		for line := range strings.Lines(text) {
			line = strings.TrimSpace(line)
			if name, begins := strings.CutPrefix(line, "*"); begins {
				table = name
			}
			if strings.HasPrefix(line, "-A ") && !strings.Contains(line, chainPrefix) {
				rules = append(rules, foreignRule{p, backend, table, line})
			}
		}
	}
	return rules, nil
}

// Pins returns the paths of the programs that rules of ours call, those of another agent included, in every
// backend that is installed.
func Pins(ctx context.Context) ([]string, error) {
	found := map[string]bool{}
	for _, backend := range []string{NFT, Legacy} {
		for _, p := range protocols() {
			t, err := findTools(ctx, p, backend)
			if err != nil {
				continue
			}
			names, err := t.tables(ctx, backend)
			if err != nil {
				return nil, err
			}
			if !slices.Contains(names, "mangle") {
				continue
			}
			text, err := t.save(ctx, "mangle")
			if err != nil {
				return nil, err
			}
			for _, match := range pinnedProgram.FindAllStringSubmatch(text, -1) {
				found[match[1]] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found)), nil
}

// pinnedProgram finds the program that a rule of ours calls.
var pinnedProgram = regexp.MustCompile(`(?m)^-A ` + chainPrefix + `.* --object-pinned (\S+)`)

// allForeignRules returns those of every backend that is installed.
func allForeignRules(ctx context.Context) (map[string][]foreignRule, error) {
	rules := map[string][]foreignRule{}
	var errs []error
	for _, backend := range []string{NFT, Legacy} {
		found, err := foreignRules(ctx, backend)
		if err != nil && !errors.Is(err, errNotInstalled) {
			errs = append(errs, fmt.Errorf("list rules of the %s backend: %w", backend, err))
		}
		rules[backend] = found
	}
	return rules, errors.Join(errs...)
}
