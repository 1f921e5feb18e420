package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

type topOptions struct {
	filter   filter
	interval time.Duration
	rounds   int
	limit    int
	sort     string
	by       string
}

func (p *program) topCommand() *cobra.Command {
	var o topOptions
	command := &cobra.Command{
		Use:   "top",
		Short: "Show what the nodes do, or who is denied what, the busiest first",
		Long: `top shows how many nodes are in which state, and, of the busiest, how many connections a second they
allow, deny and would have denied (audit), and how many DNS responses a second they learn. It counts
between two looks at the nodes, --interval apart; nodes report every 10 seconds.

With --by domain, workload or policy it puts together what the nodes told of connections that were denied, or would
have been (audit): how many a second, how many in the last day, and on how many nodes. What is allowed is counted by
node alone.

On a terminal each look takes the place of the one before. With -o json each is an object on a line.`,
		Example: `  namewardctl top
  namewardctl top --label role=web --sort learned
  namewardctl top --by domain --node lab
  namewardctl top --by workload --policy web-egress --sort denied
  namewardctl top --rounds 1 -o json`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if o.interval <= 0 {
				return usagef("--interval: %v is not more than zero", o.interval)
			}
			if o.rounds < 0 || o.limit < 0 {
				return usagef("--rounds and --limit: neither is less than zero")
			}
			if !slices.Contains(topGroups(), o.by) {
				return usagef("--by: %q is none of %s", o.by, strings.Join(topGroups(), ", "))
			}
			columns, collection, top := topColumns(), nodesCollection, p.top
			if o.by != byNode {
				columns, collection, top = flowColumns(), flowsCollection, p.topFlows
			}
			if !slices.Contains(columns, o.sort) {
				return usagef("--sort: %q is none of %s", o.sort, strings.Join(columns, ", "))
			}
			if err := o.filter.fits(collection); err != nil {
				return err
			}
			return top(command.Context(), o)
		},
	}
	flags := command.Flags()
	o.filter.bind(flags)
	flags.StringVar(&o.by, "by", byNode, "what to put together by: "+strings.Join(topGroups(), ", "))
	flags.DurationVar(&o.interval, "interval", 10*time.Second, "time between two looks")
	flags.IntVar(&o.rounds, "rounds", 0, "end after so many; 0 goes on until it is interrupted")
	flags.IntVar(&o.limit, "limit", 20, "show so many; 0 shows all")
	flags.StringVar(&o.sort, "sort", "deny", "the largest first: "+strings.Join(topColumns(), ", ")+"; by others than nodes: "+strings.Join(flowColumns(), ", "))
	p.completeValues(command, "sort", append(topColumns(), "denied", "audited")...)
	p.completeValues(command, "by", topGroups()...)
	p.completeFilter(command)
	p.options.bindOutput(command)
	return command
}

func topColumns() []string { return []string{"allow", "deny", "audit", "learned"} }

// nodeRates is what a node does, a second.
type nodeRates struct {
	Node    string  `json:"node"`
	State   string  `json:"state"`
	Allow   float64 `json:"allow"`
	Deny    float64 `json:"deny"`
	Audit   float64 `json:"audit"`
	Learned float64 `json:"learned"`
}

func (r nodeRates) of(column string) float64 {
	switch column {
	case "allow":
		return r.Allow
	case "audit":
		return r.Audit
	case "learned":
		return r.Learned
	}
	return r.Deny
}

// fleetRates is one look at the fleet.
type fleetRates struct {
	Time   time.Time      `json:"time"`
	States map[string]int `json:"states"`
	Nodes  []nodeRates    `json:"nodes"`
}

func (p *program) top(ctx context.Context, o topOptions) error {
	before := map[string]map[string]uint64{}
	nodes, err := p.listNodes(ctx, nil, o.filter)
	if err != nil {
		return err
	}
	at := p.now()
	for _, node := range nodes {
		before[node.GetName()] = node.GetStatus().GetCounters()
	}
	for round := 0; o.rounds == 0 || round < o.rounds; round++ {
		if !sleep(ctx, o.interval) {
			return nil
		}
		if nodes, err = p.listNodes(ctx, nil, o.filter); err != nil {
			return err
		}
		now := p.now()
		passed := now.Sub(at)
		if passed <= 0 {
			passed = o.interval
		}
		at = now
		rates := fleetRatesOf(nodes, before, passed, now)
		if err := p.printTop(rates, o, round); err != nil {
			return err
		}
	}
	return nil
}

// fleetRatesOf compares counters with those before, and puts them there.
func fleetRatesOf(nodes []*namewardv1.Node, before map[string]map[string]uint64, passed time.Duration, now time.Time) fleetRates {
	rates := fleetRates{Time: now.UTC(), States: map[string]int{}, Nodes: []nodeRates{}}
	for _, node := range nodes {
		state := stateCell(node.GetStatus()).text
		rates.States[state]++
		counters, was := node.GetStatus().GetCounters(), before[node.GetName()]
		before[node.GetName()] = counters
		rate := func(name string) float64 {
			// A datapath that was made anew counts from zero, and a node that is new here had not been looked at.
			if was == nil || counters[name] < was[name] {
				return 0
			}
			return float64(counters[name]-was[name]) / passed.Seconds()
		}
		rates.Nodes = append(rates.Nodes, nodeRates{
			Node: node.GetName(), State: state, Allow: rate("verdicts_allow"), Deny: rate("verdicts_deny"),
			Audit: rate("verdicts_audit"), Learned: rate("dns_responses_learned"),
		})
	}
	return rates
}

func (p *program) printTop(rates fleetRates, o topOptions, round int) error {
	slices.SortStableFunc(rates.Nodes, func(a, b nodeRates) int { return cmp.Compare(b.of(o.sort), a.of(o.sort)) })
	total := len(rates.Nodes)
	if o.limit > 0 {
		rates.Nodes = rates.Nodes[:min(total, o.limit)]
	}
	if p.options.output.structured() {
		return p.printTopObject(rates, round)
	}
	text := topStates(total, rates.States) + "\n\n"
	t := &table{header: []string{"NODE", "STATE", "ALLOW/s", "DENY/s", "AUDIT/s", "LEARNED/s"}}
	for _, r := range rates.Nodes {
		t.add(plain(r.Node), cell{r.State, stateStyle(r.State)}, rateCell(r.Allow), rateCell(r.Deny), rateCell(r.Audit), rateCell(r.Learned))
	}
	return p.printLook(text+t.render(p.painter()), round)
}

func topStates(total int, states map[string]int) string {
	var parts []string
	for _, state := range []string{"current", "behind", "degraded", "failed", "disconnected"} {
		if n := states[state]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %s", thousands(n), state))
		}
	}
	text := count(total, "node")
	if len(parts) > 0 {
		text += ": " + strings.Join(parts, ", ")
	}
	return text
}

func rateCell(rate float64) cell {
	switch {
	case rate == 0:
		return cell{"0", styleFaint}
	case rate < 10:
		return plain(strconv.FormatFloat(rate, 'f', 1, 64))
	}
	return plain(thousands(int(rate + 0.5)))
}
