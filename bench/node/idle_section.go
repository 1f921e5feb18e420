package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nameward/nameward/bench/measure"
	"github.com/nameward/nameward/bench/report"
)

// idle measures an agent that has nothing to do but to see that all stands.
type idle struct{}

const idleBudget = 1.0 // percent of a core

func (i idle) measure(ctx context.Context, bin string, size size, names []string) (result report.Result, err error) {
	patterns, err := patternsOf(names, size.patterns)
	if err != nil {
		return result, err
	}
	result = report.Result{
		Title: "The agent has nothing to do",
		Text: fmt.Sprintf(`Two agents, one on each backend of iptables, each with %s patterns in force and connected to its server, while no packet
passes. What they use are the processors' time for themselves and for the programs that they start, over %v at a time, both in the same time.`, thousands(size.patterns), size.idle),
	}
	table := report.Table{Caption: "CPU at rest, of a core", Columns: []string{"", "median", "quartiles", "99 of 100 within"}}
	var sites []*site
	defer func() {
		for _, s := range sites {
			err = errors.Join(err, s.close())
		}
	}()
	backends := []string{"nft", "legacy"}
	for _, backend := range backends {
		s, err := open(ctx, bin, "--iptables", backend)
		if err != nil {
			return result, err
		}
		sites = append(sites, s)
		if _, err := s.take(ctx, rulesOf(patterns)); err != nil {
			return result, err
		}
	}
	shares, err := i.rest(ctx, sites, size)
	if err != nil {
		return result, err
	}
	for n, backend := range backends {
		low, high := shares[n].Spread()
		table.Rows = append(table.Rows, quantiles(backend, shares[n], percent))
		result.Budgets = append(result.Budgets, report.Budget{
			Work: "agent: CPU idle (" + backend + ")", Promise: "≤ 1 % of a core",
			Measured: fmt.Sprintf("%s (%s–%s)", percent(shares[n].Median()), percent(low), percent(high)), Met: shares[n].Median() <= idleBudget,
		})
	}
	result.Tables = []report.Table{table}
	return result, nil
}

func percent(share float64) string { return fmt.Sprintf("%.2f %%", share) }

// rest returns what each site's agent used in each round, in percent of a core. The first round is not counted.
func (i idle) rest(ctx context.Context, sites []*site, size size) ([]measure.Series, error) {
	shares := make([]measure.Series, len(sites))
	before := make([]time.Duration, len(sites))
	for round := range size.rounds + 2 {
		for n, s := range sites {
			used, err := cpuTime(s.agent.PID())
			if err != nil {
				return nil, err
			}
			if round > 1 {
				shares[n].Values = append(shares[n].Values, 100*float64(used-before[n])/float64(size.idle))
			}
			before[n] = used
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(size.idle):
		}
	}
	return shares, nil
}
