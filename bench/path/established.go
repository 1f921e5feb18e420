package path

import (
	"context"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/bench/measure"
	"github.com/nameward/nameward/bench/report"
	"github.com/nameward/nameward/dataplane/netfilter"
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
	var err error
	w.sent, err = w.node.carried("out0")
	return err
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
	for _, backend := range []string{netfilter.NFT, netfilter.Legacy} {
		logf(config, "established connections: iptables-%s", backend)
		ways, _, err := waysOfSets(ctx, backend, 1, false)
		if err != nil {
			return report.Result{}, err
		}
		for _, t := range []transport{{"TCP", unix.IPPROTO_TCP}, {"UDP", unix.IPPROTO_UDP}} {
			c := establishedCosts{backend: backend, transport: t.name}
			if c.path, err = costOfOpened(ctx, x, ways, t.protocol); err != nil {
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

// establishedCosts are what a packet costs by way.
type establishedCosts struct {
	backend, transport string
	path               map[string]measure.Series
}

func costOfOpened(ctx context.Context, x extent, ways []*way, protocol uint8) (map[string]measure.Series, error) {
	var variants []measure.Variant
	for _, w := range ways {
		if err := openConnections(w, protocol); err != nil {
			return nil, err
		}
		variants = append(variants, w.wholePath(x.bursts))
	}
	series, err := measure.Interleave(ctx, x.rounds, variants...)
	return byName(series), err
}

const establishedText = `All packets behind the first of a connection only have to be recognised as such. They are
packets of 256 connections in turn, from the client's side, on the same path as above. *No rules* is a node that
does not even keep the table of connections; *one conntrack rule* is one that does and looks at the state of each
packet, as every stateful firewall does.`

func reportEstablished(all []establishedCosts) report.Result {
	r := report.Result{Title: "A packet of an established connection", Text: establishedText}
	over := report.Table{
		Caption: "Nanoseconds a packet of an established connection: median (quartiles)",
		Columns: []string{"iptables", noRules, plain, ours, "nameward over no rules", "nameward over one conntrack rule"},
	}
	for _, c := range all {
		overNone, overPlain := c.path[ours].Over(c.path[noRules]), c.path[ours].Over(c.path[plain])
		over.Rows = append(over.Rows, []string{
			c.backend + ", " + c.transport, spread(c.path[noRules]), spread(c.path[plain]), spread(c.path[ours]),
			spread(overNone), spread(overPlain),
		})
		for _, against := range []struct {
			name   string
			series measure.Series
		}{{noRules, overNone}, {plain, overPlain}} {
			r.Budgets = append(r.Budgets, report.Budget{
				Work:    fmt.Sprintf("Packet of an established connection (iptables-%s, %s), over %s", c.backend, c.transport, against.name),
				Promise: fmt.Sprintf("≤ %d ns", establishedPromise), Measured: spread(against.series) + " ns",
				Met: against.series.Median() <= establishedPromise,
			})
		}
	}
	r.Tables = []report.Table{over}
	return r
}
