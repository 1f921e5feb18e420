package fleet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nameward/nameward/bench/measure"
	"github.com/nameward/nameward/bench/report"
)

const (
	writeBudget   = 10.0 // ms
	replaceBudget = 10.0 // seconds
	memoryBudget  = 1e9
)

// writes measures what operators wait for: until one policy is durable, and until a large set is replaced.
func writes(ctx context.Context, bin string, size size) (result report.Result, err error) {
	s, err := open(ctx, bin)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.putMany(ctx, size.policies, 0, size.policies); err != nil {
		return result, err
	}
	var write, took measure.Series
	for i := range size.writes {
		began := time.Now()
		if err := s.put(ctx, policyOf(i%size.policies, 1)); err != nil {
			return result, err
		}
		write.Values = append(write.Values, inMilliseconds(time.Since(began)))
	}
	// The first makes the set, the others replace all of it.
	const replacements = 3
	lists := [][]string{manyDomains(size.replaced, "a"), manyDomains(size.replaced, "b")}
	for i := range replacements + 1 {
		began := time.Now()
		if err := s.replace(ctx, setName, lists[i%2]); err != nil {
			return result, err
		}
		if i > 0 {
			took.Values = append(took.Values, time.Since(began).Seconds())
		}
	}
	after, err := s.use()
	if err != nil {
		return result, err
	}
	count := report.Thousands(float64(size.replaced))
	result = report.Result{
		Title: "An operator writes",
		Text: fmt.Sprintf(`Policies among %s are written one after the other by one operator, each durable (bolt, fsync) before it is answered.
Then a domain set of %s patterns is replaced by as many others.`, report.Thousands(float64(size.policies)), count),
		Tables: []report.Table{{
			Columns: []string{"", "median", "quartiles", "99 of 100 within"},
			Rows:    [][]string{quantiles("write of a policy", write, milliseconds), quantiles("replacement of a set", took, seconds)},
		}},
		Budgets: []report.Budget{
			{Work: "policy write, durable: half of them within", Promise: "≤ 10 ms", Measured: milliseconds(write.Median()), Met: write.Median() <= writeBudget},
			{Work: "set of " + count + " patterns replaced: time", Promise: "≤ 10 s", Measured: report.Spread(took, seconds), Met: took.Median() <= replaceBudget},
			{Work: "set of " + count + " patterns replaced: server memory at most", Promise: "≤ 1 GB", Measured: report.Bytes(after.peak), Met: after.peak <= memoryBudget},
		},
	}
	return result, nil
}
