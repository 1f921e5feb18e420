package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

// What flow events are put together by.
const (
	byNode     = "node"
	byDomain   = "domain"
	byWorkload = "workload"
	byPolicy   = "policy"
)

func topGroups() []string { return []string{byNode, byDomain, byWorkload, byPolicy} }

func flowColumns() []string { return []string{"deny", "audit", "denied", "audited"} }

// groupRates is what was denied of one domain, to one workload, or by one policy: a second since the look before, and
// in all that is known. Audit is what policies in mode AUDIT would have denied.
type groupRates struct {
	Name    string  `json:"name"`
	Deny    float64 `json:"deny"`
	Audit   float64 `json:"audit"`
	Denied  uint64  `json:"denied"`
	Audited uint64  `json:"audited"`
	// Nodes is on how many nodes.
	Nodes int `json:"nodes"`
}

func (r groupRates) of(column string) float64 {
	switch column {
	case "audit":
		return r.Audit
	case "denied":
		return float64(r.Denied)
	case "audited":
		return float64(r.Audited)
	}
	return r.Deny
}

// flowRates is one look at the flow events of a fleet.
type flowRates struct {
	Time   time.Time    `json:"time"`
	By     string       `json:"by"`
	Groups []groupRates `json:"groups"`
}

// topFlows shows who is denied what, by what is asked for.
func (p *program) topFlows(ctx context.Context, o topOptions) error {
	filter, err := o.filter.flows()
	if err != nil {
		return err
	}
	flows, err := p.listFlows(ctx, filter)
	if err != nil {
		return err
	}
	before, at := countsOf(flows), p.now()
	for round := 0; o.rounds == 0 || round < o.rounds; round++ {
		if !sleep(ctx, o.interval) {
			return nil
		}
		if flows, err = p.listFlows(ctx, filter); err != nil {
			return err
		}
		now := p.now()
		passed := cmp.Or(max(now.Sub(at), 0), o.interval)
		rates := flowRates{Time: now.UTC(), By: o.by, Groups: groupsOf(flows, o.by, before, passed)}
		before, at = countsOf(flows), now
		if err := p.printTopFlows(rates, o, round); err != nil {
			return err
		}
	}
	return nil
}

// flowKey tells flow events apart.
type flowKey struct {
	node, workload, inside, destination, rule, question string
	mode                                                namewardv1.Policy_Mode
}

func keyOfFlow(flow *namewardv1.FlowEvent) flowKey {
	return flowKey{
		flow.GetNode(), flowWorkload(flow.GetWorkload()), flow.GetWorkload().GetInterface(),
		flowDestination(flow.GetDestination()), flowRule(flow), flow.GetQuestion(), flow.GetMode(),
	}
}

func countsOf(flows []*namewardv1.FlowEvent) map[flowKey]uint64 {
	counts := make(map[flowKey]uint64, len(flows))
	for _, flow := range flows {
		counts[keyOfFlow(flow)] += flow.GetCount()
	}
	return counts
}

// groupsOf puts flow events together, and compares their counts with those before.
func groupsOf(flows []*namewardv1.FlowEvent, by string, before map[flowKey]uint64, passed time.Duration) []groupRates {
	groups := map[string]*groupRates{}
	nodes := map[[2]string]bool{}
	for key, count := range countsOf(flows) {
		before[key] = count - min(before[key], count) // from here on, what has come
	}
	for _, flow := range flows {
		name := groupOf(flow, by)
		group := groups[name]
		if group == nil {
			group = &groupRates{Name: name}
			groups[name] = group
		}
		if met := [2]string{name, flow.GetNode()}; !nodes[met] {
			nodes[met] = true
			group.Nodes++
		}
		key := keyOfFlow(flow)
		rate := float64(before[key]) / passed.Seconds()
		before[key] = 0 // counted
		if flow.GetMode() == namewardv1.Policy_AUDIT {
			group.Audit, group.Audited = group.Audit+rate, group.Audited+flow.GetCount()
		} else {
			group.Deny, group.Denied = group.Deny+rate, group.Denied+flow.GetCount()
		}
	}
	list := make([]groupRates, 0, len(groups))
	for _, group := range groups {
		list = append(list, *group)
	}
	slices.SortFunc(list, func(a, b groupRates) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// groupOf returns to what a flow event counts. Of several names of an address that is the newest, of an address without
// one it is the address.
func groupOf(flow *namewardv1.FlowEvent, by string) string {
	switch by {
	case byWorkload:
		return flowWorkload(flow.GetWorkload())
	case byPolicy:
		if flow.GetPolicy() == "" {
			return flowRule(flow)
		}
		return flow.GetPolicy()
	}
	switch {
	case flow.GetQuestion() != "":
		return flow.GetQuestion()
	case len(flow.GetDomains()) > 0:
		return flow.GetDomains()[0]
	}
	return orNone(flow.GetDestination().GetAddress())
}

func (p *program) printTopFlows(rates flowRates, o topOptions, round int) error {
	slices.SortStableFunc(rates.Groups, func(a, b groupRates) int {
		return cmp.Or(cmp.Compare(b.of(o.sort), a.of(o.sort)), cmp.Compare(b.Denied+b.Audited, a.Denied+a.Audited))
	})
	total := len(rates.Groups)
	if o.limit > 0 {
		rates.Groups = rates.Groups[:min(total, o.limit)]
	}
	if p.options.output.structured() {
		return p.printTopObject(rates, round)
	}
	title := map[string]string{byDomain: "DOMAIN", byWorkload: "WORKLOAD", byPolicy: "POLICY"}[o.by]
	t := &table{header: []string{title, "DENY/s", "AUDIT/s", "DENIED", "AUDITED", "NODES"}}
	for _, r := range rates.Groups {
		t.add(plain(r.Name), rateCell(r.Deny), rateCell(r.Audit), countCell(r.Denied), countCell(r.Audited), plain(thousands(r.Nodes)))
	}
	return p.printLook(topTotal(total, o.by)+"\n\n"+t.render(p.painter()), round)
}

// topTotal says how many there are, of whom some may not be shown.
func topTotal(total int, by string) string {
	if by == byPolicy {
		return "what denied connections: " + thousands(total)
	}
	return count(total, by) + " with denied connections"
}

func countCell(count uint64) cell {
	if count == 0 {
		return cell{"0", styleFaint}
	}
	return plain(thousands(int(count))) //nolint:gosec // a count of packets
}

// printTopObject prints a look for programs.
func (p *program) printTopObject(rates any, round int) error {
	encoded, err := json.Marshal(rates)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	if p.options.output == formatJSON {
		return p.print(string(encoded) + "\n")
	}
	if round > 0 {
		if err := p.print("---\n"); err != nil {
			return err
		}
	}
	return p.printDocument(encoded)
}

// printLook prints a look for people: on a terminal in place of the one before.
func (p *program) printLook(text string, round int) error {
	switch {
	case isTerminal(p.stdout):
		text = "\x1b[H\x1b[2J" + text
	case round > 0:
		text = "\n" + text
	}
	return p.print(text)
}

// sleep waits, and reports whether ctx still lives.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
