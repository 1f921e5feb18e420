package fleet

import (
	"context"
	"errors"
	"fmt"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/bench/measure"
	"github.com/nameward/nameward/bench/report"
)

const (
	editBudget = 2 << 10 // bytes a node
	setName    = "domainSets/large"
	// framing is what gRPC puts before a message.
	framing = 5
)

// domainSet measures what one pattern of a large set costs on its way to the nodes that use it.
func domainSet(ctx context.Context, bin string, size size) (result report.Result, err error) {
	s, err := open(ctx, bin)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.replace(ctx, setName, manyDomains(size.domains, "bench")); err != nil {
		return result, err
	}
	policy := policyOf(0, 0)
	policy.Rules[0].DomainSets = []string{setName}
	if err := s.put(ctx, policy); err != nil {
		return result, err
	}
	a := join(ctx, s, size.users)
	defer func() { err = errors.Join(err, a.stop()) }()
	if err := a.awaitRevision(ctx, 2); err != nil {
		return result, err
	}
	whole := a.received() / float64(size.users)
	var bytes measure.Series
	for edit := range size.edits {
		before, revision := a.received(), a.Agent(kept).State().Revision
		request := &namewardv1.AddDomainsRequest{Name: setName, Domains: []string{fmt.Sprintf("one-more-%d.bench.example", edit)}}
		if _, err := s.sets.AddDomains(ctx, request); err != nil {
			return result, fmt.Errorf("add domain: %w", err)
		}
		if err := a.awaitRevision(ctx, revision+1); err != nil {
			return result, err
		}
		bytes.Values = append(bytes.Values, (a.received()-before)/float64(size.users))
	}
	if _, err := a.Agent(kept).Rules(); err != nil {
		return result, err
	}
	nodes, domains := report.Thousands(float64(size.users)), report.Thousands(float64(size.domains))
	result = report.Result{
		Title:  "One pattern of a large set",
		Text:   fmt.Sprintf(`A domain set of %s patterns, which %s nodes use, gets one more, again and again. Bytes are those of the messages.`, domains, nodes),
		Tables: []report.Table{{Columns: []string{"", "bytes a node"}, Rows: [][]string{{"the whole set", report.Bytes(whole)}, {"one pattern more", report.Bytes(bytes.Median())}}}},
		Budgets: []report.Budget{{
			Work:    fmt.Sprintf("one pattern changed in a set of %s that %s nodes use: bytes a node", domains, nodes),
			Promise: "≤ 2 KB", Measured: report.Spread(bytes, report.Bytes), Met: bytes.Quantile(1) <= editBudget,
		}},
	}
	return result, nil
}

// received is how many bytes the agents have received in all.
func (a *agents) received() (bytes float64) {
	for _, state := range a.States() {
		bytes += float64(state.Bytes + framing*state.Messages)
	}
	return bytes
}
