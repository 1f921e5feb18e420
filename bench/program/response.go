package program

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/miekg/dns"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/bench/measure"
	"github.com/nameward/nameward/bench/report"
	"github.com/nameward/nameward/bpf"
)

// Variants of the section.
const (
	emptyProgram = "empty program"
	askAgain     = "asking again" // what the hot programs do before the response
	oneRecord    = "one A record"
	thirty       = "30 A records"
	chain        = "CNAME and A record"
	unmentioned  = "name that no policy mentions"
	query        = "query, remembered"
)

// hotNote is what stages and calls were measured to take.
const hotNote = "Some twenty-five calls of functions and helpers take about 300 ns of it: a call with its return 9 ns on this kind of CPU, the copy of the message 27 ns, the clock 50 ns. The rest is the name's labels, their hashes and look-up, the outstanding question, and the digest by which the agent is told of an answer only once. " +
	"For a name that no policy mentions all but the mapping remains, since every answer is reported."

// responses are what one node and the baselines beside it are shown.
type responses struct {
	*node
	lpms     lpms
	variants []measure.Variant
	count    int // of lookups made
}

func measureResponses(ctx context.Context, config report.Config) (result report.Result, err error) {
	n, err := newNode(agentPatterns, effortOf(config))
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	return n.responses(ctx, config.Names, 10_000)
}

// responses measures with so many names known.
func (n *node) responses(ctx context.Context, names []string, count int) (result report.Result, err error) {
	list, err := know(names[:count])
	if err != nil {
		return result, err
	}
	patterns := patternsOf(list)
	rules := slices.Clone(patterns)
	for _, count := range generalCounts {
		more, err := general(count)
		if err != nil {
			return result, err
		}
		rules = append(rules, more...)
	}
	if err := n.apply(ctx, oneSet(rules)); err != nil {
		return result, err
	}
	r := &responses{node: n}
	if r.lpms, err = newLPMs(patterns); err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, r.lpms.close()) }()
	if err := r.lay(list[0].name, names[len(names)-1]); err != nil {
		return result, err
	}
	for _, count := range generalCounts {
		name := "www." + generalBase(count)
		if _, err := r.add(generalName(count), name, bpf.DatapathCounterCOUNTER_UNMATCHED, records(name, plus(r.first, 300+count), 1)...); err != nil {
			return result, err
		}
	}
	s, err := interleave(ctx, r.hotRounds, r.variants...)
	if err == nil {
		err = r.check()
	}
	if err != nil {
		return result, err
	}
	return r.report(s, count), nil
}

// lay makes the lookups: of a known name, and of one that no pattern matches.
func (r *responses) lay(name, other string) error {
	cname := &dns.CNAME{
		Hdr: dns.RR_Header{Name: dns.Fqdn(name), Rrtype: dns.TypeCNAME, Class: dns.ClassINET, Ttl: 300}, Target: "edge7.cdn-bench.example.",
	}
	one, err := r.add(oneRecord, name, bpf.DatapathCounterCOUNTER_LEARNED, records(name, r.first, 1)...)
	if err != nil {
		return err
	}
	many, err := r.add(thirty, name, bpf.DatapathCounterCOUNTER_LEARNED, records(name, plus(r.first, 100), 30)...)
	if err != nil {
		return err
	}
	aliased := append([]dns.RR{cname}, records("edge7.cdn-bench.example", plus(r.first, 200), 1)...)
	if _, err := r.add(chain, name, bpf.DatapathCounterCOUNTER_LEARNED, aliased...); err != nil {
		return err
	}
	unknown, err := r.add(unmentioned, other, bpf.DatapathCounterCOUNTER_UNMATCHED, records(other, plus(r.first, 300), 1)...)
	if err != nil {
		return err
	}
	r.variants = append(r.variants,
		hot(query, r.query, one.query), hot(askAgain, r.hot.HotNothing, one.response), hot(emptyProgram, r.hot.Empty, one.response))
	for _, l := range r.lpms {
		if err := errors.Join(l.check(one.response, r.first), l.check(many.response, plus(r.first, 129))); err != nil {
			return err
		}
		r.variants = append(r.variants, hot(l.name+oneRecord, l.LpmResponse, one.response),
			hot(l.name+thirty, l.LpmResponse, many.response), hot(l.name+unmentioned, l.LpmResponse, unknown.response))
	}
	return nil
}

// add has the node learn from a response, and measures it as a variant.
func (r *responses) add(variant, name string, as bpf.DatapathCounter, answer ...dns.RR) (lookup, error) {
	r.count++
	l, err := newLookup(client, r.count, name, answer...)
	if err != nil {
		return l, err
	}
	if err := r.resolve(l, as); err != nil {
		return l, fmt.Errorf("%s: %w", variant, err)
	}
	r.variants = append(r.variants, hot(variant, r.hot.HotResponse, l.response))
	return l, nil
}

// generalCounts are how many general patterns some names are held against.
var generalCounts = []int{8, 64}

func generalBase(count int) string { return fmt.Sprintf("bulk%d.example", count) }

// general makes patterns against which each name below a base is held, and none of which matches.
func general(count int) (patterns []domain.Pattern, err error) {
	for i := range count {
		pattern, err := domain.ParsePattern(fmt.Sprintf("service%d-*.%s", i, generalBase(count)))
		if err != nil {
			return nil, fmt.Errorf("make pattern: %w", err)
		}
		patterns = append(patterns, pattern)
	}
	return patterns, nil
}

func generalName(patterns int) string {
	return fmt.Sprintf("%s, held against %d patterns", unmentioned, patterns)
}

func (r *responses) report(s samples, count int) report.Result {
	table := report.Table{Columns: []string{"response", "Nameward"}}
	for _, l := range r.lpms {
		table.Columns = append(table.Columns, l.name)
	}
	for _, variant := range []string{oneRecord, thirty, chain, unmentioned, generalName(generalCounts[0]), generalName(generalCounts[1])} {
		row := []string{variant, ns(s.corrected(variant, askAgain, emptyProgram))}
		for _, l := range r.lpms {
			row = append(row, s.cell(l.name+variant))
		}
		table.Rows = append(table.Rows, row)
	}
	table.Rows = append(table.Rows, []string{query, ns(s[query]), "–", "–"}, []string{emptyProgram, ns(s[emptyProgram]), "–", "–"})
	return report.Result{
		Title: "A DNS response, program alone, hot",
		Text: "The kernel runs the program on one packet thousands of times (`BPF_PROG_TEST_RUN`), so that everything is in the CPU's caches: the least that a response can cost. " + report.Thousands(float64(count)) + " names are known. " +
			"A response is learned only if it answers an outstanding question, and takes it away; so it is asked again before each run, and what the asking alone takes is subtracted. " +
			"The baseline is what is usually written first: a parser that looks the name up in an LPM trie of reversed names, and for each address scans a map of sets. Its cost is that of the map's buckets, used or not. It checks nothing: no question, no owner, no expiry.",
		Budgets: []report.Budget{
			s.beside(oneRecord, within("DNS response, one A record, hot", 200, s.corrected(oneRecord, askAgain, emptyProgram), hotNote, s[emptyProgram], report.EmptyHot)),
			s.beside(thirty, within("DNS response, 30 A records, hot", 1200, s.corrected(thirty, askAgain, emptyProgram), hotNote, s[emptyProgram], report.EmptyHot)),
			s.beside(unmentioned, within("DNS response for a name that no policy mentions, hot", 100, s.corrected(unmentioned, askAgain, emptyProgram), hotNote, s[emptyProgram], report.EmptyHot)),
		},
		Tables: []report.Table{table},
	}
}
