package path

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/nameward/nameward/bench/measure"
	"github.com/nameward/nameward/bench/report"
	"github.com/nameward/nameward/dataplane/netfilter"
)

// Names of the ways that rules can be written.
const (
	noRules     = "no rules"
	plain       = "one conntrack rule"
	emptyHooks  = "our rules, empty programs"
	ours        = "nameward"
	ipsets      = "one ipset rule a set"
	setPrograms = "one xt_bpf program a set"
)

// maxSetPrograms is how many sets get a program each: more of them take minutes to load.
const maxSetPrograms = 1000

// waysOfSets makes a node for each way of allowing so many domain sets.
func waysOfSets(ctx context.Context, backend string, count int, others bool) (ways []*way, programs map[string]string, err error) {
	to := addresses(services, count)
	programs = map[string]string{}
	defer func() {
		if err != nil {
			closeAll(ways)
		}
	}()
	add := func(name string, open func(*node) error) {
		if err != nil {
			return
		}
		var w *way
		if w, err = newWay(ctx, name, open); err != nil {
			return
		}
		w.packets = &forwarded{node: w.node, from: addresses(clients, 1), to: to}
		ways = append(ways, w)
	}
	add(noRules, func(*node) error { return nil })
	add(plain, func(n *node) error { return restore(ctx, n, backend, "") })
	add(emptyHooks, func(n *node) error {
		empty, err := hookEmpty(ctx, n, backend)
		programs[emptyHooks] = empty.EgressForwarded
		return err
	})
	add(ours, func(n *node) error {
		e, err := enforceSets(ctx, n, backend, to)
		if err == nil {
			programs[ours] = e.programs.EgressForwarded
		}
		return err
	})
	if others {
		add(ipsets, func(n *node) error { return hookIPSets(ctx, n, backend, to) })
	}
	if others && count <= maxSetPrograms {
		add(setPrograms, func(n *node) error { return hookSetPrograms(ctx, n, backend, to) })
	}
	return ways, programs, err
}

func enforceSets(ctx context.Context, n *node, backend string, to []netip.Addr) (*enforcement, error) {
	rules, err := allowSets(len(to), everyWorkload)
	if err != nil {
		return nil, err
	}
	answers, err := resolveSets(to)
	if err != nil {
		return nil, err
	}
	return enforce(ctx, n, backend, rules, answers)
}

// costs are what packets cost at one size: the whole path by way, and one program by way.
type costs struct {
	size    int
	path    map[string]measure.Series
	program map[string]measure.Series
	steady  *costs // the same of our rules, where all connections are of one client to one destination
}

func byName(series []measure.Series) map[string]measure.Series {
	named := map[string]measure.Series{}
	for _, s := range series {
		named[s.Name] = s
	}
	return named
}

// compare measures the ways by turns: with packets that take turns over all there is, and then our rules with those
// of the last client and the last destination alone.
func compare(ctx context.Context, x extent, size int, ways []*way, programs map[string]string) (costs, error) {
	c, err := compareOnce(ctx, x, size, ways, programs)
	if err != nil {
		return c, err
	}
	var steady []*way
	for _, w := range ways {
		if f, ok := w.packets.(*forwarded); ok && programs[w.name] != "" {
			w.packets = &forwarded{node: w.node, from: f.from[len(f.from)-1:], to: f.to[len(f.to)-1:]}
			steady = append(steady, w)
		}
	}
	s, err := compareOnce(ctx, x, size, steady, programs)
	c.steady = &s
	return c, err
}

// compareOnce measures the whole path, and then the programs that some ways have.
func compareOnce(ctx context.Context, x extent, size int, ways []*way, programs map[string]string) (costs, error) {
	c := costs{size: size}
	var paths, clocks []measure.Variant
	for _, w := range ways {
		paths = append(paths, w.wholePath(x.bursts))
		if pin := programs[w.name]; pin != "" {
			variant, err := w.inPath(x.bursts, pin)
			if err != nil {
				return c, err
			}
			clocks = append(clocks, variant)
		}
	}
	series, err := measure.Interleave(ctx, x.rounds, paths...)
	if err != nil {
		return c, err
	}
	c.path = byName(series)
	return c, withStatistics(func() error {
		series, err := measure.Interleave(ctx, x.rounds, clocks...)
		c.program = byName(series)
		return err
	})
}

func costOfSets(ctx context.Context, x extent, backend string, size int, others bool) (costs, error) {
	ways, programs, err := waysOfSets(ctx, backend, size, others)
	if err != nil {
		return costs{}, err
	}
	defer closeAll(ways)
	if !others {
		return compareOnce(ctx, x, size, ways, programs)
	}
	return compare(ctx, x, size, ways, programs)
}

func measureNew(ctx context.Context, config report.Config) (report.Result, error) {
	return newConnections(ctx, config, extentOf(config))
}

func newConnections(ctx context.Context, config report.Config, x extent) (report.Result, error) {
	var all, legacy []costs
	for _, size := range x.sets {
		logf(config, "new connections: %d domain sets", size)
		c, err := costOfSets(ctx, x, netfilter.NFT, size, true)
		if err != nil {
			return report.Result{}, fmt.Errorf("%d domain sets: %w", size, err)
		}
		all = append(all, c)
	}
	for _, size := range x.legacy {
		logf(config, "new connections: %d domain sets, iptables-legacy", size)
		c, err := costOfSets(ctx, x, netfilter.Legacy, size, false)
		if err != nil {
			return report.Result{}, fmt.Errorf("%d domain sets, legacy: %w", size, err)
		}
		legacy = append(legacy, c)
	}
	return reportNew(all, legacy), nil
}
