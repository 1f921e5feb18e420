package program

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/bench/report"
	"github.com/nameward/nameward/bpf"
)

// firstSource is the network of the first workload; each has four addresses.
var firstSource = netip.MustParseAddr("10.1.0.0")

// sourceNote is what stands in the way of a verdict that costs the same with any number of sources.
const sourceNote = "A source's CIDR leads to its workload, and that with the match set to its rules: a cell of a cache line each, in pages of their own. Where thousands of workloads take turns, both come from memory, one behind the other."

func measureWorkloads(ctx context.Context, config report.Config) (result report.Result, err error) {
	n, err := newNode(agentPatterns, effortOf(config))
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	return n.workloads(ctx, config.Names, sizes(config, []int{1, 10, 100, 1000, 10_000}, []int{1, 100, 10_000}))
}

func (n *node) workloads(ctx context.Context, names []string, counts []int) (result report.Result, err error) {
	lines, table, err := against("workloads", counts, func(count int) (samples, error) { return n.policies(ctx, names, count) })
	if err != nil {
		return result, err
	}
	result.Title = "A verdict against the number of workloads, program alone"
	result.Text = fmt.Sprintf("Each workload is a CIDR with a policy of its own, which allows a domain set that all policies share. Hot: a connection of the last workload. Varied: %s connections, each to another address, of as many workloads as there are. "+
		"A CIDR is found by its bits and their number, in one line of memory for each length that CIDRs have; here it is one length.", report.Thousands(float64(n.packets)))
	result.Budgets = []report.Budget{
		flat("verdict, hot, from 1 to 10,000 workloads by CIDR", lines.of(verdictHot), sourceNote),
		flat("verdict, varied, from 1 to 10,000 workloads by CIDR", lines.of(verdictVaried), sourceNote),
		flat("DNS response, hot, from 1 to 10,000 workloads by CIDR", lines.of(learnHot), ""),
	}
	result.Tables = []report.Table{table}
	result.Plots = []report.Plot{{
		File: "program-workloads.svg", Title: lines.title("A verdict takes %s with one workload and %s with 10,000, each with its policy", verdictHot),
		X: "workloads, each a CIDR with a policy of its own", Y: "time of the program", LogX: true, NanosecondsY: true, StartYAtZero: true,
		Lines: lines.list, Ours: verdictHot,
		Alternate: "Time of a verdict and of a response against the number of workloads. " + lines.ends(),
	}}
	return result, nil
}

// policies measures with so many of them, each for a workload of its own.
func (n *node) policies(ctx context.Context, names []string, count int) (s samples, err error) {
	list, err := know(names[:1000])
	if err != nil {
		return nil, err
	}
	set := ruleset.NewDomainSet("domainSets/shared", patternsOf(list))
	rules := &ruleset.RuleSet{DomainSets: []ruleset.DomainSet{set}}
	for i := range count {
		rules.Policies = append(rules.Policies, ruleset.Policy{
			Name:      fmt.Sprintf("policies/policy%05d", i),
			Workloads: []ruleset.Workload{{CIDRs: []netip.Prefix{netip.PrefixFrom(plus(firstSource, 4*i), 30)}}},
			Rules:     []ruleset.Rule{{DomainSets: []string{set.Name}}},
		})
	}
	if err := n.apply(ctx, rules); err != nil {
		return nil, err
	}
	last := plus(firstSource, 4*(count-1)+1)
	l, err := newLookup(last, n.packets, list[0].name, records(list[0].name, plus(n.first, n.packets), 1)...)
	if err != nil {
		return nil, err
	}
	if err := n.resolve(l, bpf.DatapathCounterCOUNTER_LEARNED); err != nil {
		return nil, err
	}
	connections, err := n.connections(list, func(i int) netip.Addr {
		return plus(firstSource, 4*spread(i, n.packets, count)+1)
	})
	if err != nil {
		return nil, err
	}
	return n.measureVerdicts(ctx, l, connection(last, 20_000, plus(n.first, n.packets)), connections)
}
