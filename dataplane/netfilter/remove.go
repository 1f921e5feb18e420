package netfilter

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/coreos/go-iptables/iptables"
)

// Remove removes every rule and chain of ours from both backends and families, and names what it
// removed. A backend that is not installed holds nothing.
func Remove(ctx context.Context) ([]string, error) {
	var removed []string
	var errs []error
	for _, backend := range []string{NFT, Legacy} {
		names, err := removeFrom(ctx, backend)
		removed = append(removed, names...)
		errs = append(errs, err)
	}
	return removed, errors.Join(errs...)
}

func removeFrom(ctx context.Context, backend string) ([]string, error) {
	var removed []string
	var errs []error
	for _, p := range protocols() {
		t, err := findTools(ctx, p, backend)
		if err != nil {
			continue
		}
		tables, err := t.tables(ctx, backend)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, table := range []string{"mangle", "filter"} {
			if !slices.Contains(tables, table) {
				continue
			}
			names, err := t.removeTable(ctx, table)
			for _, name := range names {
				removed = append(removed, fmt.Sprintf("%s (%s) %s: %s", p, backend, table, name))
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("remove rules of %s (%s) %s: %w", p, backend, table, err))
			}
		}
	}
	return removed, errors.Join(errs...)
}

// removeTable removes the jumps first, since a chain that something refers to cannot go, then empties
// all chains, which may refer to one another, then deletes them.
func (t tools) removeTable(ctx context.Context, table string) ([]string, error) {
	text, err := t.save(ctx, table)
	if err != nil || !strings.Contains(text, chainPrefix) {
		return nil, err
	}
	ipt, err := t.library()
	if err != nil {
		return nil, err
	}
	have := parseListing(text)
	var removed []string
	for _, hook := range slices.Sorted(maps.Keys(have)) {
		if ours(hook) {
			continue
		}
		for _, position := range slices.Backward(have.jumps(hook)) {
			if err := t.restore(ctx, fmt.Sprintf("*%s\n%sCOMMIT\n", table, deletion(hook, position, have[hook][position]))); err != nil {
				return removed, fmt.Errorf("delete jump from %s: %w", hook, err)
			}
			removed = append(removed, "jump from "+hook)
		}
	}
	var chains []string
	for name := range have {
		if !ours(name) {
			continue
		}
		if err := ipt.ClearChain(table, name); err != nil {
			return removed, fmt.Errorf("clear chain %s: %w", name, err)
		}
		chains = append(chains, name)
	}
	slices.Sort(chains)
	for _, name := range chains {
		if err := ipt.DeleteChain(table, name); err != nil {
			return removed, fmt.Errorf("delete chain %s: %w", name, err)
		}
		removed = append(removed, "chain "+name)
	}
	return removed, nil
}

func (t tools) library() (*iptables.IPTables, error) {
	proto := iptables.ProtocolIPv4
	if t.protocol == ipv6 {
		proto = iptables.ProtocolIPv6
	}
	ipt, err := iptables.New(iptables.IPFamily(proto), iptables.Path(t.main), iptables.Timeout(int(lockWait.Seconds())))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", t.main, err)
	}
	return ipt, nil
}
