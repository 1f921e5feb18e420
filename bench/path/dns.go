package path

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/bench/measure"
	"github.com/nameward/nameward/bench/program"
	"github.com/nameward/nameward/bench/report"
	"github.com/nameward/nameward/dataplane/netfilter"
)

// Promises of DNS in path, in nanoseconds.
const (
	responsePromise = 1000
	queryPromise    = 400
)

// knownNames is how many patterns the policy has at most.
const knownNames = 100_000

func parsePatterns(names []string) ([]domain.Pattern, error) {
	patterns := make([]domain.Pattern, 0, len(names))
	for _, name := range names {
		pattern, err := domain.ParsePattern(name)
		if err != nil {
			return nil, fmt.Errorf("names to measure with: %w", err)
		}
		patterns = append(patterns, pattern)
	}
	return patterns, nil
}

// allowNames is a policy with a set of many names.
func allowNames(names []string) (*ruleset.RuleSet, error) {
	patterns, err := parsePatterns(names)
	if err != nil {
		return nil, err
	}
	set := ruleset.NewDomainSet("domainSets/names", patterns)
	return &ruleset.RuleSet{
		DomainSets: []ruleset.DomainSet{set},
		Policies: []ruleset.Policy{{
			Name: "policies/names", Workloads: everyWorkload, Rules: []ruleset.Rule{{DomainSets: []string{set.Name}}},
		}},
	}, nil
}

// namesOf takes the names that are known, and from all over them those that are asked for.
func namesOf(config report.Config, askedNames int) (known, asked []string) {
	known = config.Names
	for i := len(known); i == len(known) && i < askedNames; i++ {
		known = append(known, fmt.Sprintf("host%d.site%d.example", i, i%100))
	}
	known = known[:min(len(known), knownNames)]
	count := min(askedNames, len(known))
	for i := range count {
		asked = append(asked, known[i*(len(known)/count)])
	}
	return known, asked
}

// converse makes a node whose rules call programs, and asks through it.
func converse(ctx context.Context, name string, asked []string, open func(*node) (netfilter.Programs, func(int) error, error)) (*conversation, error) {
	x, err := newExchanges(asked)
	if err != nil {
		return nil, err
	}
	n, err := newNode(ctx)
	if err != nil {
		return nil, err
	}
	c := &conversation{name: name, node: n, asked: x}
	var programs netfilter.Programs
	if programs, c.check, err = open(n); err != nil {
		n.close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	for _, pin := range []string{programs.DNSResponse, programs.DNSQueryForwarded} {
		watched, err := openClock(n, pin)
		if err != nil {
			n.close()
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		c.clocks, c.times = append(c.clocks, watched), append(c.times, nil)
	}
	return c, nil
}

func measureDNS(ctx context.Context, config report.Config) (report.Result, error) {
	return dnsInPath(ctx, config, extentOf(config))
}

func dnsInPath(ctx context.Context, config report.Config, x extent) (result report.Result, err error) {
	known, asked := namesOf(config, x.asked)
	logf(config, "DNS in path: %d names", len(known))
	learning, err := converseLearning(ctx, asked, func(n *node, state string) (*enforcement, func(int) error, error) {
		e, err := learn(ctx, n, known, state)
		if err != nil {
			return nil, nil, err
		}
		return e, e.learned(), nil
	})
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, learning.end()) }()
	empty, err := converse(ctx, emptyHooks, asked, func(n *node) (netfilter.Programs, func(int) error, error) {
		programs, err := hookEmpty(ctx, n, netfilter.NFT)
		return programs, unchecked, err
	})
	if err != nil {
		return result, err
	}
	defer empty.node.close()
	var baselines []*conversation
	for _, baseline := range program.PinnedLPMs() {
		lpm, err := converse(ctx, baseline.Name, asked, func(n *node) (netfilter.Programs, func(int) error, error) {
			programs, err := hookLPM(ctx, n, known, baseline)
			return programs, unchecked, err
		})
		if err != nil {
			return result, err
		}
		defer lpm.node.close()
		baselines = append(baselines, lpm)
	}
	if err := converseByTurns(ctx, x, append([]*conversation{empty, learning.conversation}, baselines...)...); err != nil {
		return result, err
	}
	return reportDNS(len(known), learning.conversation, empty, baselines...), nil
}

// hookLPM puts the agent's rules on a node, of whose programs one is the LPM baseline and the others do nothing.
func hookLPM(ctx context.Context, n *node, known []string, baseline program.PinnedLPM) (programs netfilter.Programs, err error) {
	patterns, err := parsePatterns(known)
	if err != nil {
		return programs, err
	}
	if err := n.do(func() error {
		if programs, err = emptyPrograms(); err != nil {
			return err
		}
		programs.DNSResponse = filepath.Join(bpfDir, "lpm-response")
		unload, err := baseline.Pin(programs.DNSResponse, patterns)
		if err == nil {
			n.atEnd(func() { _ = unload() })
		}
		return err
	}); err != nil {
		return programs, err
	}
	return programs, hook(ctx, n, netfilter.NFT, programs)
}

// unchecked is for programs that learn nothing.
func unchecked(int) error { return nil }

// Clocks of a conversation.
const (
	responseClock = iota
	queryClock
)

// converseByTurns asks for all names for the first time, and then again and again.
func converseByTurns(ctx context.Context, x extent, all ...*conversation) error {
	return withStatistics(func() error {
		variants := make([]measure.Variant, 0, len(all))
		for _, c := range all {
			if err := c.sample(ctx, len(c.asked.questions)); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			variants = append(variants, c.again(x.questions))
		}
		_, err := measure.Interleave(ctx, x.rounds, variants...)
		return err
	})
}

const dnsText = `Clients behind the node ask a trusted resolver, and each answer has one A record with an
address of its own. Questions and answers are packets on virtual cables that pass the node's rules, one after the
other, and the kernel says how long each run of a program took. Asked are %s names in turn, of the %s that the
policy allows: the first time, when the address becomes known and the agent is told, and then again, when it is
prolonged. The agent runs beside and reads what it is told. That each answer was learned is checked.

The LPM tries are what is usually written first: a parser that looks the reversed name up in a trie, and for each
address scans a map of sets for those that the name is in. A scan visits each bucket of the map.`

func reportDNS(known int, learning, empty *conversation, baselines ...*conversation) report.Result {
	asked := len(learning.asked.questions)
	r := report.Result{
		Title: "A DNS question and its answer, in path",
		Text:  fmt.Sprintf(dnsText, report.Thousands(float64(asked)), report.Thousands(float64(known))),
	}
	response, query := learning.later(responseClock), learning.later(queryClock)
	var others []string
	for _, b := range baselines {
		others = append(others, fmt.Sprintf("%s: %s ns", b.name, report.Thousands(b.later(responseClock).Median())))
	}
	r.Budgets = []report.Budget{
		noted("names in turn are cold in the processor's caches: the index and the cell of the name, what the agent was told and the mapping come from memory, at once (ADR 57)", report.Budget{
			Work: "DNS response, one A record, in path", Promise: fmt.Sprintf("≤ %s ns", report.Thousands(responsePromise)),
			Measured: spread(response) + " ns", Met: response.Median() <= responsePromise,
			Relative: report.Relative(response.Median(), empty.later(responseClock).Median(), responsePromise, report.EmptyInPath),
			Beside:   strings.Join(others, "; "),
		}),
		noted("reading the clock and copying the packet are a third of it; its bucket of three cache lines is one of 256, so that it is in no nearest cache", report.Budget{
			Work: "DNS query that is remembered, in path", Promise: fmt.Sprintf("≤ %s ns", report.Thousands(queryPromise)),
			Measured: spread(query) + " ns", Met: query.Median() <= queryPromise,
			Relative: report.Relative(query.Median(), empty.later(queryClock).Median(), queryPromise, report.EmptyInPath),
		}),
	}
	t := report.Table{
		Caption: "Nanoseconds a run of a program, by the kernel's statistics: median (quartiles)",
		Columns: []string{"", "response, asked for the first time", "response, asked again", "query, first", "query, again"},
	}
	for _, c := range append([]*conversation{learning, empty}, baselines...) {
		t.Rows = append(t.Rows, []string{
			c.name, report.Thousands(c.first(responseClock)), spread(c.later(responseClock)),
			report.Thousands(c.first(queryClock)), spread(c.later(queryClock)),
		})
	}
	r.Tables = []report.Table{t}
	return r
}
