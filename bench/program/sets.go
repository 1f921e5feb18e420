package program

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/bench/report"
	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
)

const (
	verdictHot    = "verdict, hot"
	verdictVaried = "verdict, varied"
	learnHot      = "response, hot"
	namesOfSet    = 10
	rulesOfPolicy = 50
)

// setsNote is what stands in the way of a verdict that costs the same with any number of domain sets.
const setsNote = "With one domain set all connections share the cell of its rules, which is near; with thousands each domain set's rules are in a cell of their own, which is in no cache but by chance."

// against measures at each of the sizes.
func against(what string, counts []int, measure func(count int) (samples, error)) (*lines, report.Table, error) {
	measured := []string{verdictHot, verdictVaried, learnHot, emptyProgram}
	lines, table := newLines(measured...), report.Table{Columns: append([]string{what}, measured...)}
	for _, count := range counts {
		s, err := measure(count)
		if err != nil {
			return nil, table, fmt.Errorf("%d %s: %w", count, what, err)
		}
		lines.points(count, s)
		row := []string{report.Thousands(float64(count))}
		for _, name := range measured {
			row = append(row, ns(s[name]))
		}
		table.Rows = append(table.Rows, row)
	}
	return lines, table, nil
}

func measureSets(ctx context.Context, config report.Config) (result report.Result, err error) {
	n, err := newNode(agentPatterns, effortOf(config))
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	return n.sets(ctx, config.Names, sizes(config, []int{1, 10, 100, 1000, 10_000}, []int{1, 100, 10_000}))
}

func (n *node) sets(ctx context.Context, names []string, counts []int) (result report.Result, err error) {
	lines, table, err := against("domain sets", counts, func(count int) (samples, error) { return n.domainSets(ctx, names, count) })
	if err != nil {
		return result, err
	}
	result.Title = "A verdict against the number of domain sets, program alone"
	result.Text = fmt.Sprintf("Each domain set has %d patterns and a rule of its own, %d rules a policy. Hot: a connection to a name of the last set, which the last rule allows. Varied: %s connections, each to another address, of names of as many sets as there are.", namesOfSet, rulesOfPolicy, report.Thousands(float64(n.packets)))
	result.Budgets = []report.Budget{
		flat("verdict, hot, from 1 to 10,000 domain sets", lines.of(verdictHot), ""),
		flat("verdict, varied, from 1 to 10,000 domain sets", lines.of(verdictVaried), setsNote),
		flat("DNS response, hot, from 1 to 10,000 domain sets", lines.of(learnHot), ""),
	}
	result.Tables = []report.Table{table}
	result.Plots = []report.Plot{{
		File: "program-sets.svg", Title: lines.title("A verdict takes %s with one domain set and %s with 10,000, each with its rule", verdictHot),
		X: "domain sets, each with a rule of its own", Y: "time of the program", LogX: true, NanosecondsY: true, StartYAtZero: true,
		Lines: lines.list, Ours: verdictHot,
		Alternate: "Time of a verdict and of a response against the number of domain sets. " + lines.ends(),
	}}
	return result, nil
}

// manySets is a rule set with a rule for each domain set.
func manySets(list []known) *ruleset.RuleSet {
	rules := &ruleset.RuleSet{}
	for at := 0; at < len(list); at += namesOfSet {
		number := at / namesOfSet
		set := ruleset.NewDomainSet(fmt.Sprintf("domainSets/set%05d", number), patternsOf(list[at:at+namesOfSet]))
		rules.DomainSets = append(rules.DomainSets, set)
		if number%rulesOfPolicy == 0 {
			rules.Policies = append(rules.Policies, ruleset.Policy{
				Name: fmt.Sprintf("policies/policy%05d", number/rulesOfPolicy), Workloads: []ruleset.Workload{{CIDRs: []netip.Prefix{clients}}},
			})
		}
		policy := &rules.Policies[len(rules.Policies)-1]
		policy.Rules = append(policy.Rules, ruleset.Rule{DomainSets: []string{set.Name}, Ports: []ruleset.Ports{{Protocol: ruleset.TCP, First: 443, Last: 443}}})
	}
	return rules
}

// domainSets measures with so many of them.
func (n *node) domainSets(ctx context.Context, names []string, count int) (s samples, err error) {
	list, err := know(names[:count*namesOfSet])
	if err != nil {
		return nil, err
	}
	if err := n.apply(ctx, manySets(list)); err != nil {
		return nil, err
	}
	last := len(list) - 1
	l, err := newLookup(client, n.packets, list[last].name, records(list[last].name, plus(n.first, n.packets), 1)...)
	if err != nil {
		return nil, err
	}
	if err := n.resolve(l, bpf.DatapathCounterCOUNTER_LEARNED); err != nil {
		return nil, err
	}
	connections, err := n.connections(list, func(int) netip.Addr { return client })
	if err != nil {
		return nil, err
	}
	return n.measureVerdicts(ctx, l, connection(client, 20_000, plus(n.first, n.packets)), connections)
}

// connections makes connections to as many addresses, whatever the size, of names that are spread over the list.
func (n *node) connections(list []known, from func(number int) netip.Addr) (packets [][]byte, err error) {
	for i := range n.packets {
		name := list[spread(i, n.packets, len(list))].name
		to := plus(n.first, i)
		l, err := newLookup(client, i, name, records(name, to, 1)...)
		if err != nil {
			return nil, err
		}
		if err := n.resolve(l, bpf.DatapathCounterCOUNTER_LEARNED); err != nil {
			return nil, err
		}
		packets = append(packets, connection(from(i), 20_000+i, to))
	}
	return packets, n.drain()
}

// spread gives the place in a list of the number-th of so many picks: all over the list, or round and round.
func spread(number, picks, length int) int {
	if length < picks {
		return number % length
	}
	return number * length / picks
}

// measureVerdicts measures a verdict on one connection, hot, and on many, and a response hot beside them.
func (n *node) measureVerdicts(ctx context.Context, l lookup, one []byte, many [][]byte) (samples, error) {
	if err := run(n.egress, one); err != nil {
		return nil, err
	}
	if err := n.ask(l); err != nil { // what was answered soon gives its place to another
		return nil, err
	}
	s, err := interleave(ctx, n.hotRounds, hot(verdictHot, n.egress, one),
		hot(learnHot, n.hot.HotResponse, l.response), hot(askAgain, n.hot.HotNothing, l.response), hot(emptyProgram, n.hot.Empty, one))
	if err != nil {
		return nil, err
	}
	s[learnHot] = s.corrected(learnHot, askAgain, emptyProgram)
	cold, err := interleave(ctx, n.variedRounds, varied(verdictVaried, n.egress, many, nothing))
	if err != nil {
		return nil, err
	}
	s[verdictVaried] = cold[verdictVaried]
	return s, n.check()
}

// connection is the first packet of a connection.
func connection(from netip.Addr, port int, to netip.Addr) []byte {
	return bpftest.Connection(bpftest.TCP, netip.AddrPortFrom(from, uint16(port)), netip.AddrPortFrom(to, 443)) //nolint:gosec // below 65,536
}
