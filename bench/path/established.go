package path

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/bench/measure"
	"github.com/nameward/nameward/bench/report"
)

// opened are packets of connections that both sides have spoken on, one packet of each in turn.
type opened struct {
	node  *node
	flows []flow
	next  int
}

// openedCount is how many connections there are.
const openedCount = 256

// openConnections makes connections through a node, as their first packets do.
func openConnections(w *way, protocol uint8) error {
	p := &opened{node: w.node}
	for i := range openedCount {
		p.flows = append(p.flows, flow{
			protocol, netip.AddrPortFrom(clients.Addr().Next(), uint16(firstPort+i)), //nolint:gosec // 256 of them
			netip.AddrPortFrom(services.Addr().Next(), 443),
		})
	}
	for _, f := range p.flows {
		var frame [frameBytes]byte
		for _, packet := range []struct {
			socket           int
			device           byte
			flow             flow
			flags            uint8
			sequence, answer uint32
		}{
			{w.node.cable.source, toIn0, f, syn, 0, 0},
			{w.node.cable.sink, toOut0, f.reverse(), syn | ack, 0, 1},
			{w.node.cable.source, toIn0, f, ack, 1, 1},
		} {
			bytes := writeFrame(frame[:], packet.device, packet.flow, packet.flags, packet.sequence, packet.answer)
			if _, err := unix.Write(packet.socket, bytes); err != nil {
				return fmt.Errorf("open connections: %w", err)
			}
		}
	}
	w.packets = p
	w.sent += 2 * openedCount // the answers go the other way
	return w.node.await("out0", w.sent)
}

func (p *opened) pack(b *burst) {
	for i := range burstPackets {
		b.setFrame(i, toIn0, p.flows[p.next%len(p.flows)], ack, 1, 1)
		p.next++
	}
}

func (p *opened) socket() int { return p.node.cable.source }
func (p *opened) fresh() bool { return false }

func measureEstablished(ctx context.Context, config report.Config) (report.Result, error) {
	return established(ctx, config, extentOf(config))
}

// A transport is how established connections are spoken on.
type transport struct {
	name     string
	protocol uint8
}

func established(ctx context.Context, config report.Config, x extent) (report.Result, error) {
	var all []establishedCosts
	for _, backend := range x.backends {
		logf(config, "established connections: iptables-%s", backend)
		ways, programs, err := waysOfOpened(ctx, backend)
		if err != nil {
			return report.Result{}, err
		}
		for _, t := range []transport{{"TCP", unix.IPPROTO_TCP}, {"UDP", unix.IPPROTO_UDP}} {
			c := establishedCosts{backend: backend, transport: t.name}
			if c.path, err = costOfOpened(ctx, x, ways, programs, t.protocol); err != nil {
				break
			}
			all = append(all, c)
		}
		closeAll(ways)
		if err != nil {
			return report.Result{}, fmt.Errorf("established connections, iptables-%s: %w", backend, err)
		}
	}
	return reportEstablished(all), nil
}

// passUnjudged makes sure that a program which judges is not called for the packets of a way.
func passUnjudged(w *way, pin string) error {
	c, err := openClock(w.node, pin)
	if err != nil {
		return err
	}
	return withStatistics(func() error {
		_, err := c.during(func() error {
			_, err := w.burst()
			return err
		})
		if err == nil {
			return errors.New("packets of established connections are judged")
		}
		if errors.Is(err, errNotCalled) {
			return nil
		}
		return err
	})
}

// Ways of which nothing is judged.
const (
	tracked    = "connections tracked, no rule"
	threeHooks = "one rule at each of three hooks"
)

// waysOfOpened are those of one domain set, and what the parts of the rest cost.
func waysOfOpened(ctx context.Context, backend string) (ways []*way, programs map[string]string, err error) {
	ways, programs, err = waysOfSets(ctx, backend, 1, false)
	if err != nil {
		return nil, nil, err
	}
	for name, rules := range map[string]string{
		// No packet here comes to INPUT, but with the rule connections are tracked.
		tracked: "*filter\n-A INPUT " + stateRule + "COMMIT\n",
		threeHooks: "*mangle\n-A PREROUTING " + stateRule + "-A POSTROUTING " + stateRule + "COMMIT\n" +
			"*filter\n-A FORWARD " + stateRule + "COMMIT\n",
	} {
		w, err := newWay(ctx, name, func(n *node) error {
			return n.do(func() error { return run(ctx, rules, "iptables-"+backend+"-restore", "--noflush") })
		})
		if err != nil {
			closeAll(ways)
			return nil, nil, err
		}
		ways = append(ways, w)
	}
	return ways, programs, nil
}

// establishedCosts are what a packet costs by way.
type establishedCosts struct {
	backend, transport string
	path               map[string]measure.Series
}

func costOfOpened(ctx context.Context, x extent, ways []*way, programs map[string]string, protocol uint8) (map[string]measure.Series, error) {
	var variants []measure.Variant
	for _, w := range ways {
		if err := openConnections(w, protocol); err != nil {
			return nil, err
		}
		if pin := programs[w.name]; pin != "" {
			if err := passUnjudged(w, pin); err != nil {
				return nil, fmt.Errorf("%s: %w", w.name, err)
			}
		}
		variants = append(variants, w.wholePath(x.bursts))
	}
	series, err := measure.Interleave(ctx, x.rounds, variants...)
	return byName(series), err
}

const establishedText = `All packets behind the first of a connection only have to be recognised as such. They are
packets of 256 connections in turn, from the client's side, on the same path as above. *No rules* is a node that
does not even keep the table of connections; with *connections tracked, no rule* it does, and no rule looks; *one
conntrack rule* accepts by the state of the connection, as every stateful firewall does. nameward has to be at three
hooks: before routing (questions, egress), where a packet can be rejected, and where answers leave. *One rule at each
of three hooks* is the least that this costs with iptables: a packet enters each chain, meets that one rule, and
leaves.`

func reportEstablished(all []establishedCosts) report.Result {
	r := report.Result{Title: "A packet of an established connection", Text: establishedText}
	names := []string{noRules, tracked, plain, threeHooks, ours}
	table := report.Table{Caption: "Nanoseconds a packet of an established connection: median (quartiles)", Columns: append([]string{"iptables"}, names...)}
	over := report.Table{
		Caption: "nameward over the others, nanoseconds a packet: median (quartiles)",
		Columns: append([]string{"iptables"}, names[:len(names)-1]...),
	}
	for _, c := range all {
		row, differences := []string{c.backend + ", " + c.transport}, []string{c.backend + ", " + c.transport}
		for _, name := range names {
			row = append(row, spread(c.path[name]))
			if name != ours {
				differences = append(differences, spread(c.path[ours].Over(c.path[name])))
			}
		}
		table.Rows, over.Rows = append(table.Rows, row), append(over.Rows, differences)
		r.Budgets = append(r.Budgets, establishedBudget(c))
	}
	r.Tables = []report.Table{over, table}
	return r
}

func establishedBudget(c establishedCosts) report.Budget {
	cost := c.path[ours].Over(c.path[tracked])
	least, one := c.path[threeHooks].Over(c.path[tracked]), c.path[plain].Over(c.path[tracked])
	return beside(fmt.Sprintf("one conntrack rule: %s ns; one at each of three hooks: %s ns", report.Thousands(one.Median()), report.Thousands(least.Median())), noted(
		fmt.Sprintf("the promise is for one conntrack rule, which alone costs %s ns here, and one at each of the three hooks that are needed %s ns; over a node without a table of connections it is %s ns, of which the table is %s ns",
			report.Thousands(one.Median()), report.Thousands(least.Median()), spread(c.path[ours].Over(c.path[noRules])), report.Thousands(c.path[tracked].Over(c.path[noRules]).Median())),
		report.Budget{
			Work:    fmt.Sprintf("Packet of an established connection (iptables-%s, %s), over a node that tracks connections and has no rules", c.backend, c.transport),
			Promise: fmt.Sprintf("≤ %d ns", establishedPromise), Measured: spread(cost) + " ns", Met: cost.Median() <= establishedPromise,
		}))
}
