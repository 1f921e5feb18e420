// Command bench measures what Nameward costs, beside what others do on the same machine, and writes the page
// docs/benchmarks.md with its plots. A failed section is told on the page and makes the exit status 1; the
// others still run. A run of some sections takes the place of those alone on a page.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/nameward/nameward/bench/fleet"
	"github.com/nameward/nameward/bench/node"
	"github.com/nameward/nameward/bench/path"
	"github.com/nameward/nameward/bench/program"
	"github.com/nameward/nameward/bench/programs"
	"github.com/nameward/nameward/bench/report"
	"github.com/nameward/nameward/bench/traffic"
)

// sections is what there is to measure, in the order of the page.
func sections() []report.Section {
	return slices.Concat(
		report.Of("Dataplane", program.Sections(), path.Sections(), traffic.Sections(), node.Sections()),
		report.Of("Control plane", fleet.Sections()),
	)
}

const defaultOut = "docs/benchmarks.md"

// builtOf is the commit that the linker was told of, without what is in no commit.
var builtOf string

// errFailed says that some section failed; which one has been told.
var errFailed = errors.New("a section failed")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	err := command(ctx, os.Args[1:], sections(), os.Stdout, os.Stderr)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "\nInterrupted; no page is written.")
	default:
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
	stop()
	os.Exit(1) //nolint:gocritic // stop has run
}

func command(ctx context.Context, args []string, all []report.Section, out, log io.Writer) error {
	o, err := parse(args, log)
	if err != nil {
		return err
	}
	switch {
	case o.list:
		for _, section := range all {
			fmt.Fprintln(out, section.Name)
		}
		return nil
	case o.render:
		page, err := report.Load(o.out, all)
		if err == nil && len(page.Runs) == 0 {
			err = fmt.Errorf("render: there are no results for %s", o.out)
		}
		if err != nil {
			return err
		}
		return save(page, o.out, out)
	}
	return o.measure(ctx, all, out, log)
}

func save(page report.Page, file string, out io.Writer) error {
	if err := page.Save(file); err != nil {
		return err
	}
	fmt.Fprintln(out, "written:", file)
	return nil
}

// measure measures the sections that were chosen, and puts them on the page.
func (o options) measure(ctx context.Context, all []report.Section, out, log io.Writer) (err error) {
	chosen, err := choose(all, o.only)
	if err != nil {
		return err
	}
	run := report.Run{Commit: report.Commit(ctx), Began: time.Now().UTC().Truncate(time.Second), Fast: o.fast, Machine: report.ThisMachine(ctx)}
	fmt.Fprintln(log, run.Machine)
	// What would keep the page from being written is found before hours are spent.
	if _, err := o.page(all, run); err != nil {
		return err
	}
	if tree := report.Clean(run.Commit); o.out != "" && builtOf != "" && builtOf != tree {
		return fmt.Errorf("this program was built of %s, and the tree is at %s: make build-bench", builtOf, tree)
	}
	config := report.Config{Fast: o.fast, Soak: o.soak, Log: log}
	if config.Names, run.Names, err = o.readNames(log); err != nil {
		return err
	}
	var remove func() error
	if config.Programs, remove, err = build(ctx, chosen); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	if now := report.Commit(ctx); now != run.Commit {
		return fmt.Errorf("the tree went from %s to %s while programs were built of it", run.Commit, now)
	}
	run.Outcomes, err = measure(ctx, chosen, config, out)
	if err != nil {
		return err
	}
	// Another run may have written to it meanwhile.
	page, err := o.page(all, run)
	if err != nil {
		return err
	}
	page.Take(run)
	if o.out != "" {
		if err := save(page, o.out, out); err != nil {
			return err
		}
	}
	if slices.ContainsFunc(run.Outcomes, func(o report.Outcome) bool { return o.Failure != "" }) {
		return errFailed
	}
	return nil
}

// build builds the programs of this tree, if a section needs them.
func build(ctx context.Context, chosen []report.Section) (dir string, remove func() error, err error) {
	if !slices.ContainsFunc(chosen, func(s report.Section) bool { return s.Processes }) {
		return "", func() error { return nil }, nil
	}
	// A name as the lab's own, so that the next lab removes it if this process is killed.
	if dir, err = os.MkdirTemp("", fmt.Sprintf("nameward-lab-%d-programs-", os.Getpid())); err != nil {
		return "", nil, fmt.Errorf("make directory of programs: %w", err)
	}
	remove = func() error { return os.RemoveAll(dir) }
	if err := programs.Build(ctx, dir, programs.Server, programs.Agent, programs.Bare, programs.Baseline); err != nil {
		return "", nil, errors.Join(err, remove())
	}
	return dir, remove, nil
}

// page is what a run is to be added to: a new page if all is measured, or what there is.
func (o options) page(all []report.Section, run report.Run) (report.Page, error) {
	page := report.Page{Sections: all}
	if o.out == "" || o.only == "" {
		return page, nil
	}
	page, err := report.Load(o.out, all)
	return page, errors.Join(err, page.Fits(run.Fast))
}

// measure runs one section after the other. It ends early, with an error, only when ctx does.
func measure(ctx context.Context, chosen []report.Section, config report.Config, out io.Writer) ([]report.Outcome, error) {
	var outcomes []report.Outcome
	for i, section := range chosen {
		fmt.Fprintf(config.Log, "[%d/%d] %s\n", i+1, len(chosen), section.Name)
		start := time.Now()
		result, err := section.Measure(ctx, config)
		if ctx.Err() != nil {
			return outcomes, errors.Join(ctx.Err(), err)
		}
		outcome := report.Outcome{Section: section.Name, Result: result, Took: time.Since(start)}
		if err == nil {
			err = result.Check()
		}
		if err != nil {
			outcome.Result, outcome.Failure = report.Result{}, err.Error()
		}
		outcomes = append(outcomes, outcome)
		if err := outcome.Print(out); err != nil {
			return outcomes, fmt.Errorf("print: %w", err)
		}
	}
	return outcomes, nil
}
