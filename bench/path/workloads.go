package path

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/bench/report"
	"github.com/nameward/nameward/dataplane/netfilter"
)

// allowByClient is a policy for each client, which allows it what the first domain set has.
func allowByClient(clients []netip.Addr) (*ruleset.RuleSet, error) {
	rules, err := allowSets(1, nil)
	if err != nil {
		return nil, err
	}
	rule := rules.Policies[0].Rules
	rules.Policies = nil
	for i, client := range clients {
		rules.Policies = append(rules.Policies, ruleset.Policy{
			Name: fmt.Sprintf("policies/w%05d", i), Rules: rule,
			Workloads: []ruleset.Workload{{CIDRs: []netip.Prefix{netip.PrefixFrom(client, client.BitLen())}}},
		})
	}
	return rules, nil
}

// waysOfWorkloads are our rules with empty programs, and with so many workloads.
func waysOfWorkloads(ctx context.Context, count int) (ways []*way, programs map[string]string, err error) {
	from, to := addresses(clients, count), addresses(services, 1)
	programs = map[string]string{}
	defer func() {
		if err != nil {
			closeAll(ways)
		}
	}()
	for name, open := range map[string]func(*node) error{
		emptyHooks: func(n *node) error {
			empty, err := hookEmpty(ctx, n, netfilter.NFT)
			programs[emptyHooks] = empty.EgressForwarded
			return err
		},
		ours: func(n *node) error {
			rules, err := allowByClient(from)
			if err != nil {
				return err
			}
			answers, err := resolveSets(to)
			if err != nil {
				return err
			}
			e, err := enforce(ctx, n, netfilter.NFT, rules, answers)
			if err == nil {
				programs[ours] = e.programs.EgressForwarded
			}
			return err
		},
	} {
		w, err := newWay(ctx, name, open)
		if err != nil {
			return ways, nil, err
		}
		w.packets = &forwarded{node: w.node, from: from, to: to}
		ways = append(ways, w)
	}
	return ways, programs, nil
}

func measureWorkloads(ctx context.Context, config report.Config) (report.Result, error) {
	return workloads(ctx, config, extentOf(config))
}

func workloads(ctx context.Context, config report.Config, x extent) (report.Result, error) {
	var all []costs
	for _, size := range x.workloads {
		logf(config, "%d workloads", size)
		ways, programs, err := waysOfWorkloads(ctx, size)
		if err != nil {
			return report.Result{}, fmt.Errorf("%d workloads: %w", size, err)
		}
		c, err := compare(ctx, x, size, ways, programs)
		closeAll(ways)
		if err != nil {
			return report.Result{}, fmt.Errorf("%d workloads: %w", size, err)
		}
		all = append(all, c)
	}
	return reportWorkloads(all), nil
}

const workloadsText = `Each workload is a client with an address and a policy of its own. Either one of them opens
all connections, or they take turns, so that neither the path of an address through the tables nor its rules are
warm in the processor's caches when it comes again.`

func reportWorkloads(all []costs) report.Result {
	r := report.Result{Title: "A new connection, by number of workloads", Text: workloadsText}
	r.Budgets = []report.Budget{
		flat("Verdict on a new connection: the egress program in path, most workloads against fewest, one client", all, steadily(programOf(ours))),
		noted("a client's address leads to its workload, and that with the match set to its rules: a cell of a cache line each, in pages of their own, and where thousands of clients take turns both come from memory, one behind the other",
			flat("Verdict on a new connection: the egress program in path, most workloads against fewest, clients by turns", all, programOf(ours))),
	}
	r.Tables = []report.Table{bySize("Nanoseconds a run of the egress program by the kernel's statistics, and of the whole path: median (quartiles)", "workloads", all, []column{
		{"empty program", programOf(emptyHooks)},
		{"egress program, one client", steadily(programOf(ours))},
		{"egress program, by turns", programOf(ours)},
		{"path over empty programs, one client", steadily(overHooks)},
		{"path over empty programs, by turns", overHooks},
	})}
	r.Plots = []report.Plot{{
		File: "workloads-in-path.svg", Title: "Cost of a new connection, by number of workloads",
		X: "workloads", Y: "ns a run of the program, in path", LogX: true, StartYAtZero: true, Ours: ours,
		Lines: []report.Line{
			line(ours, all, steadily(programOf(ours))), line("nameward, clients by turns", all, programOf(ours)),
			line("an empty program", all, programOf(emptyHooks)),
		},
		Alternate: fmt.Sprintf("The egress program takes %s ns with %s workloads.",
			median(all, programOf(ours)), report.Thousands(float64(all[len(all)-1].size))),
	}}
	return r
}
