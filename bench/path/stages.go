package path

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/nameward/nameward/bench/measure"
	"github.com/nameward/nameward/bench/program"
	"github.com/nameward/nameward/bench/report"
	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/dataplane/netfilter"
)

// stagedPrograms are those of which each stage is measured, in the order of a conversation's clocks.
var stagedPrograms = []struct {
	name, title string
	stages      []program.Stage
	pin         func(*netfilter.Programs) *string
}{
	{bpf.DatapathProgDnsResponse, "Response", program.ResponseStages, func(p *netfilter.Programs) *string { return &p.DNSResponse }},
	{bpf.DatapathProgDnsQueryForwarded, "Question", program.QueryStages, func(p *netfilter.Programs) *string { return &p.DNSQueryForwarded }},
	{bpf.DatapathProgEgressForwarded, "First packet of a connection", program.EgressStages, func(p *netfilter.Programs) *string { return &p.EgressForwarded }},
}

// A visit is a client that resolves and connects through a node whose programs end after a stage.
type visit struct {
	*learning
	staged      *program.Staged
	inTurn, one *exchanges // of many names, and of the first of them
}

func measureStages(ctx context.Context, config report.Config) (report.Result, error) {
	return stagesInPath(ctx, config, extentOf(config))
}

func stagesInPath(ctx context.Context, config report.Config, x extent) (result report.Result, err error) {
	known, asked := namesOf(config, x.asked)
	logf(config, "stages in path: %d names", len(known))
	v := &visit{}
	v.learning, err = converseLearning(ctx, asked, func(n *node, state string) (*enforcement, func(int) error, error) {
		e, err := stage(ctx, n, v, known, state)
		return e, unchecked, err
	})
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, v.end()) }()
	if err := v.prepare(ctx, asked); err != nil {
		return result, err
	}
	series, err := v.byTurns(ctx, x)
	if err != nil {
		return result, err
	}
	return reportStages(len(known), len(asked), series), nil
}

// stage puts a policy of many names in force, by programs that end after a stage.
func stage(ctx context.Context, n *node, v *visit, known []string, state string) (*enforcement, error) {
	return learnBy(ctx, n, known, state, func(programs *netfilter.Programs) (err error) {
		if v.staged, err = program.NewStaged(programs.DNSResponse, programs.DNSQueryForwarded, programs.EgressForwarded); err != nil {
			return err
		}
		n.atEnd(func() { _ = v.staged.Close() })
		for _, p := range stagedPrograms {
			pin := p.pin(programs)
			*pin = filepath.Join(bpfDir, "staged-"+p.name)
			if err := v.staged.Pin(p.name, *pin); err != nil {
				return err
			}
		}
		return nil
	})
}

// prepare watches the third program too, and has every name become known.
func (v *visit) prepare(ctx context.Context, asked []string) (err error) {
	c := v.conversation
	watched, err := openClock(c.node, filepath.Join(bpfDir, "staged-"+bpf.DatapathProgEgressForwarded))
	if err != nil {
		return err
	}
	c.clocks, c.times = append(c.clocks, watched), append(c.times, nil)
	v.inTurn = c.asked
	if v.one, err = newExchanges(asked[:1]); err != nil {
		return err
	}
	v.inTurn.connect()
	v.one.connect()
	return withStatistics(func() error { return c.sample(ctx, len(asked)) })
}

// A stageAt is a stage by its name's place in one of the programs, with many names in turn or one alone.
type stageAt struct {
	program, stage int
	inTurn         bool
}

// byTurns measures each stage once a round.
func (v *visit) byTurns(ctx context.Context, x extent) (map[stageAt]measure.Series, error) {
	series := map[stageAt]measure.Series{}
	sample := func(p, s int, inTurn bool) func(context.Context) (float64, error) {
		return func(ctx context.Context) (float64, error) {
			c := v.conversation
			c.asked = v.one
			if inTurn {
				c.asked = v.inTurn
			}
			if err := v.staged.EndAfter(stagedPrograms[p].stages[s]); err != nil {
				return 0, err
			}
			if err := c.sample(ctx, x.questions); err != nil {
				return 0, err
			}
			times := c.times[p]
			return times[len(times)-1], nil
		}
	}
	var keys []stageAt
	var variants []measure.Variant
	for p, of := range stagedPrograms {
		for s, stage := range of.stages {
			for _, inTurn := range []bool{true, false} {
				keys = append(keys, stageAt{p, s, inTurn})
				variants = append(variants, measure.Variant{Name: of.name + ": " + stage.Name, Sample: sample(p, s, inTurn)})
			}
		}
	}
	err := withStatistics(func() error {
		list, err := measure.Interleave(ctx, x.rounds, variants...)
		for i := range list {
			series[keys[i]] = list[i]
		}
		return err
	})
	return series, err
}

const stagesText = `Each program is measured up to the end of each of its stages, by programs that return there, in
path as above; the last is the whole program. *More* is what it takes over that which ends a stage earlier. A load
that is begun in one stage is waited for in a later one, or in none if the program ends before. *One name* is asked
for, and connected to, again and again: what is near then are the tables' lines, while the code and what every
packet needs is as cold as with %s names in turn, of the %s that the policy allows. The lines of the cache that a
stage is the first to touch are counted by reading.`

func reportStages(known, asked int, series map[stageAt]measure.Series) report.Result {
	r := report.Result{
		Title: "What each stage of a program costs, in path",
		Text:  fmt.Sprintf(stagesText, report.Thousands(float64(asked)), report.Thousands(float64(known))),
	}
	for p, of := range stagedPrograms {
		t := report.Table{
			Caption: of.title + ": nanoseconds a run, by the kernel's statistics: median (quartiles)",
			Columns: []string{"up to", "names in turn", "more", "one name", "more", "lines"},
		}
		var before [2]float64
		for s, stage := range of.stages {
			row := []string{stage.Name}
			for i, inTurn := range []bool{true, false} {
				at := series[stageAt{p, s, inTurn}]
				row = append(row, spread(at), fmt.Sprintf("%+.0f", at.Median()-before[i]))
				before[i] = at.Median()
			}
			t.Rows = append(t.Rows, append(row, stage.Lines))
		}
		r.Tables = append(r.Tables, t)
	}
	return r
}
