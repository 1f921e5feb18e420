package fleet

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/bench/measure"
	"github.com/nameward/nameward/bench/report"
	"github.com/nameward/nameward/e2e/fleet"
)

const (
	observedBudget = 50_000 // mappings a second
	queryBudget    = 20.0   // ms

	mappingsABatch = 500
	// namesASite is how many names a query by a pattern finds.
	namesASite = 2_000
)

// observed is a fleet that reports mappings.
type observed struct {
	server *server
	agents *agents
	size   size
	ends   time.Time
	rounds int // of reports so far: in each, every node reports a batch
	broken int // streams that ended before their batch was taken in
}

// observations has nodes report mappings, each node a batch at a time and the next one when all have been taken in, and
// asks for some while all are reported again.
func observations(ctx context.Context, bin string, size size) (result report.Result, err error) {
	o := &observed{size: size, ends: time.Now().Add(12 * time.Hour)}
	if o.server, err = open(ctx, bin, "--max-mappings", strconv.Itoa(2*size.mappings)); err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, o.server.close()) }()
	o.agents = join(ctx, o.server, size.reporters)
	defer func() { err = errors.Join(err, o.agents.stop()) }()
	if err := o.agents.awaitRevision(ctx, 1); err != nil {
		return result, err
	}
	rate, cpu, err := o.fill(ctx)
	if err != nil {
		return result, err
	}
	missing, err := o.missing(ctx)
	if err != nil {
		return result, err
	}
	after, err := o.server.use()
	if err != nil {
		return result, err
	}
	result = report.Result{
		Title: "What a fleet saw",
		Text: fmt.Sprintf(`%s nodes report %s mappings, in batches of %d, each node its next batch when the server has taken in one of every node. Then
mappings are asked for, a page of 100 at a time, while all nodes report all they have again, with a later expiry. A query by
pattern finds %s, one by name or address a few.`,
			report.Thousands(float64(size.reporters)), report.Thousands(float64(size.mappings)), mappingsABatch, report.Thousands(namesASite)),
		Budgets: []report.Budget{
			{Work: "observations in, sustained", Promise: "≥ 50,000/s", Measured: report.Thousands(rate) + "/s", Met: rate >= observedBudget},
			{Work: "observations in: lost, of those asked for", Promise: "0", Measured: strconv.Itoa(missing), Met: missing == 0},
		},
		Tables: []report.Table{{
			Columns: []string{"", ""},
			Rows: [][]string{
				{"server CPU, a million mappings", seconds(cpu)},
				{"server memory with all of them", report.Bytes(after.resident)},
				{"connections that broke meanwhile", strconv.Itoa(o.broken)},
			},
		}},
	}
	table := report.Table{
		Caption: fmt.Sprintf("Queries among %s mappings, while they are reported again", report.Thousands(float64(size.mappings))),
		Columns: []string{"by", "median", "quartiles", "99 of 100 within"},
	}
	all, err := o.queries(ctx)
	if err != nil {
		return result, err
	}
	for _, s := range all {
		table.Rows = append(table.Rows, quantiles(s.Name, s, milliseconds))
		result.Budgets = append(result.Budgets, report.Budget{
			Work:    fmt.Sprintf("query by %s among %s mappings: half of them within", s.Name, report.Count(float64(size.mappings))),
			Promise: "≤ 20 ms", Measured: milliseconds(s.Median()), Met: s.Median() <= queryBudget,
		})
	}
	result.Tables = append(result.Tables, table)
	return result, nil
}

// fill reports all mappings, and returns how many were taken in a second and what a million cost the server.
func (o *observed) fill(ctx context.Context) (rate, cpu float64, err error) {
	before, err := o.server.use()
	if err != nil {
		return 0, 0, err
	}
	var took time.Duration
	for range o.roundsOfAll() {
		spent, err := o.round(ctx)
		if err != nil {
			return 0, 0, err
		}
		took += spent
	}
	after, err := o.server.use()
	count := float64(o.roundsOfAll() * o.size.reporters * mappingsABatch)
	return count / took.Seconds(), (after.cpu - before.cpu).Seconds() / count * 1e6, err
}

func (o *observed) roundsOfAll() int {
	return max(1, o.size.mappings/(o.size.reporters*mappingsABatch))
}

// round has every node report its next batch, and returns how long it took until all were taken in. What the nodes
// need to make their batches is not counted.
func (o *observed) round(ctx context.Context) (time.Duration, error) {
	batches := make([][]*namewardv1.Mapping, o.size.reporters)
	for node := range batches {
		batches[node] = o.batch(node)
	}
	o.rounds++
	o.ends = o.ends.Add(time.Second)
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for again := true; again; {
		sent := make([]fleet.Batch, o.size.reporters)
		// An agent that lost its connection reports again on the next.
		if err := o.agents.Await(ctx, func(s fleet.State) bool { return s.Connected }); err != nil {
			return 0, err //nolint:wrapcheck // says what it waited for
		}
		for node, batch := range batches {
			if batch == nil {
				continue
			}
			var err error
			if sent[node], err = o.agents.Agent(node).Observe(batch); err != nil && ctx.Err() != nil {
				return 0, err //nolint:wrapcheck // names the node
			}
		}
		if err := o.agents.Await(ctx, func(s fleet.State) bool {
			return batches[s.Node] == nil || s.In(sent[s.Node]) || s.Lost(sent[s.Node])
		}); err != nil {
			return 0, err //nolint:wrapcheck // as above
		}
		again = false
		for node, batch := range batches {
			if batch != nil && o.agents.Agent(node).State().In(sent[node]) {
				batches[node] = nil
			} else if batch != nil {
				again = true
				o.broken++
			}
		}
	}
	return time.Since(began), nil
}

func (o *observed) batch(node int) []*namewardv1.Mapping {
	batch := make([]*namewardv1.Mapping, mappingsABatch)
	at := (o.rounds % o.roundsOfAll()) * mappingsABatch
	for i := range batch {
		batch[i] = o.mapping(node, at+i)
	}
	return batch
}

// mapping is the i-th of a node. Names and addresses are scattered over the fleet.
func (o *observed) mapping(node, i int) *namewardv1.Mapping {
	number := i*o.size.reporters + node
	seen := timestamppb.Now()
	return &namewardv1.Mapping{
		Domain: nameOf(number), Address: addressOf(number), Node: fmt.Sprintf("nodes/node-%d", node), Client: "10.0.0.7",
		FirstSeenTime: seen, LastSeenTime: seen, ExpireTime: timestamppb.New(o.ends),
	}
}

func nameOf(number int) string {
	return fmt.Sprintf("host%d.site%d.example", number, number/namesASite)
}

func addressOf(number int) string {
	return fmt.Sprintf("%d.%d.%d.%d", 20+number>>24, number>>16&255, number>>8&255, number&255)
}

// checked is how many nodes are asked for all that they have.
const checked = 5

// missing returns how many mappings of some nodes the server does not have.
func (o *observed) missing(ctx context.Context) (int, error) {
	missing := 0
	for i := range min(checked, o.size.reporters) {
		node := i * o.size.reporters / checked
		request := &namewardv1.ListMappingsRequest{Filter: &namewardv1.MappingFilter{Node: fmt.Sprintf("nodes/node-%d", node)}, PageSize: 1000}
		missing += o.roundsOfAll() * mappingsABatch
		for first := true; first || request.GetPageToken() != ""; first = false {
			page, err := o.server.mappings.ListMappings(ctx, request)
			if err != nil {
				return 0, fmt.Errorf("list mappings: %w", err)
			}
			missing -= len(page.GetMappings())
			request.PageToken = page.GetNextPageToken()
		}
	}
	return missing, nil
}

// queries asks in several ways by turns while the nodes report.
func (o *observed) queries(ctx context.Context) ([]measure.Series, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	reporting := make(chan error, 1)
	go func() {
		for ctx.Err() == nil {
			if _, err := o.round(ctx); err != nil && ctx.Err() == nil {
				reporting <- err
				return
			}
		}
		reporting <- nil
	}()
	total := o.roundsOfAll() * o.size.reporters * mappingsABatch
	var variants []measure.Variant
	asked := 0
	for _, by := range []struct {
		name   string
		filter func(number int) *namewardv1.MappingFilter
	}{
		{"domain", func(n int) *namewardv1.MappingFilter { return &namewardv1.MappingFilter{Domain: nameOf(n)} }},
		{"pattern", func(n int) *namewardv1.MappingFilter {
			return &namewardv1.MappingFilter{Domain: fmt.Sprintf("*.site%d.example", n/namesASite)}
		}},
		{"address", func(n int) *namewardv1.MappingFilter { return &namewardv1.MappingFilter{Address: addressOf(n)} }},
		{"CIDR", func(n int) *namewardv1.MappingFilter {
			return &namewardv1.MappingFilter{Address: addressOf(n&^255) + "/24"}
		}},
	} {
		variants = append(variants, measure.Variant{Name: by.name, Sample: func(ctx context.Context) (float64, error) {
			asked++
			request := &namewardv1.ListMappingsRequest{Filter: by.filter(asked * 7919 % total)}
			began := time.Now()
			page, err := o.server.mappings.ListMappings(ctx, request)
			if err == nil && len(page.GetMappings()) == 0 {
				err = fmt.Errorf("no mapping for %v", request.GetFilter())
			}
			return inMilliseconds(time.Since(began)), err
		}})
	}
	all, err := measure.Interleave(ctx, o.size.queries, variants...)
	cancel()
	return all, errors.Join(err, <-reporting)
}
