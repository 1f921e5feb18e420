package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/bench/measure"
	"github.com/nameward/nameward/bench/report"
)

// rules measures how an agent takes in rules: all of them, and what changes.
type rules struct{}

// changeBudget is how long a change of one pattern may take.
const changeBudget = 10.0 // ms

// taken is how the agent took one revision in.
type taken struct {
	enforced, confirmed, cpu float64 // ms
}

func (r rules) measure(ctx context.Context, bin string, size size, names []string) (result report.Result, err error) {
	patterns, err := patternsOf(names, size.patterns)
	if err != nil {
		return result, err
	}
	result = report.Result{
		Title: "The agent takes in rules",
		Text: fmt.Sprintf(`A policy of one domain set with %s patterns, every fifth a wildcard, is sent to a running agent over
loopback; then patterns come and go one by one. *In force* is from the moment at which the server begins to send until packets
are judged by the new rules (seen by asking the kernel every 0.1 ms); *confirmed* is until the server has heard so, by when
the rules are on disk too. That no packet is judged by half a change is what `+"`e2e`"+` TestAtomicChange shows. A removal
stands beside: names that were learned by the old list must not open doors by it, and what programs learn at that moment is
waited for (ADR 52).`, thousands(size.patterns)),
	}
	for _, backend := range []string{"nft", "legacy"} {
		if err := r.onBackend(ctx, bin, backend, size, patterns, &result); err != nil {
			return result, err
		}
	}
	return result, nil
}

func (r rules) onBackend(ctx context.Context, bin, backend string, size size, patterns []domain.Pattern, result *report.Result) (err error) {
	s, err := open(ctx, bin, "--iptables", backend)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	all := rulesOf(patterns)
	whole, err := s.take(ctx, all)
	if err != nil {
		return fmt.Errorf("take in the snapshot: %w", err)
	}
	after, err := memoryOf(s.agent.PID())
	if err != nil {
		return err
	}
	result.Tables = append(result.Tables, report.Table{
		Caption: fmt.Sprintf("A snapshot of %s patterns (%s)", thousands(size.patterns), backend),
		Columns: []string{"", "in force", "confirmed", "CPU of the agent", "resident after", "at most"},
		Rows:    [][]string{{"snapshot", milliseconds(whole.enforced), milliseconds(whole.confirmed), milliseconds(whole.cpu), megabytes(after.resident), megabytes(after.peak)}},
	})
	added, removed, err := s.changeOneByOne(ctx, all, size)
	if err != nil {
		return err
	}
	enforced, confirmed := seriesOf(added)
	unforced, _ := seriesOf(removed)
	result.Tables = append(result.Tables, report.Table{
		Caption: fmt.Sprintf("One pattern of %s (%s)", thousands(size.patterns), backend),
		Columns: []string{"", "median", "quartiles", "99 of 100 within"},
		Rows: [][]string{
			quantiles("added: in force", enforced, milliseconds), quantiles("added: confirmed", confirmed, milliseconds),
			quantiles("removed: in force", unforced, milliseconds),
		},
	})
	budget := report.Budget{
		Work:     fmt.Sprintf("policy change on a node, %s patterns, one added: from receipt to enforced (%s)", thousands(size.patterns), backend),
		Promise:  "≤ 10 ms, 99 of 100",
		Measured: fmt.Sprintf("%s, 99 of 100 within %s", milliseconds(enforced.Median()), milliseconds(enforced.Quantile(0.99))),
		Met:      enforced.Quantile(0.99) <= changeBudget,
	}
	result.Budgets = append(result.Budgets, budget)
	return nil
}

// take has the agent take rules in, and waits until it confirms.
func (s *site) take(ctx context.Context, rules *ruleset.RuleSet) (t taken, err error) {
	before, err := s.generation()
	if err != nil {
		return t, err
	}
	cpu, err := cpuTime(s.agent.PID())
	if err != nil {
		return t, err
	}
	var switched time.Time
	var switchErr error
	seen := make(chan struct{})
	go func() {
		defer close(seen)
		switched, switchErr = s.awaitSwitch(ctx, before)
	}()
	begun, err := s.session.put(rules)
	<-seen
	if err := errors.Join(err, switchErr); err != nil {
		return t, err
	}
	confirmed, err := s.session.confirmed(ctx)
	if err != nil {
		return t, err
	}
	used, err := cpuTime(s.agent.PID())
	return taken{inMilliseconds(switched.Sub(begun)), inMilliseconds(confirmed.Sub(begun)), inMilliseconds(used - cpu)}, err
}

const (
	// between is how long nothing changes between two changes of one pattern.
	between = 150 * time.Millisecond
	// prepared is after how long the agent is ready for the next change, after one of many patterns.
	prepared = 3 * time.Second
)

// changeOneByOne adds patterns one by one, every other for the names below one, then takes some away again.
func (s *site) changeOneByOne(ctx context.Context, rules *ruleset.RuleSet, size size) (added, removed []taken, err error) {
	var patterns []domain.Pattern
	pause := prepared
	for i := range size.changes {
		pattern, err := domain.ParsePattern(fmt.Sprintf("%s.one-more-%d.example", []string{"www", "*"}[i%2], i))
		if err != nil {
			return nil, nil, err
		}
		patterns, rules = append(patterns, pattern), edited(rules, pattern, true)
		t, err := s.takeAfter(ctx, pause, rules)
		if err != nil {
			return nil, nil, fmt.Errorf("add a pattern: %w", err)
		}
		added, pause = append(added, t), between
	}
	for _, pattern := range patterns[:size.removals] {
		rules = edited(rules, pattern, false)
		t, err := s.takeAfter(ctx, prepared, rules)
		if err != nil {
			return nil, nil, fmt.Errorf("remove a pattern: %w", err)
		}
		removed = append(removed, t)
	}
	return added, removed, nil
}

func (s *site) takeAfter(ctx context.Context, pause time.Duration, rules *ruleset.RuleSet) (taken, error) {
	select {
	case <-ctx.Done():
		return taken{}, ctx.Err()
	case <-time.After(pause):
	}
	return s.take(ctx, rules)
}

func seriesOf(all []taken) (enforced, confirmed measure.Series) {
	for _, t := range all {
		enforced.Values, confirmed.Values = append(enforced.Values, t.enforced), append(confirmed.Values, t.confirmed)
	}
	return enforced, confirmed
}
