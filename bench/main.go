// Command bench measures what Nameward costs, beside what others do on the same machine, and writes the page
// docs/benchmarks.md with its plots. A failed section is told on the page and makes the exit status 1; the
// others still run.
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
	"strings"
	"syscall"
	"time"

	"github.com/nameward/nameward/bench/fleet"
	"github.com/nameward/nameward/bench/names"
	"github.com/nameward/nameward/bench/node"
	"github.com/nameward/nameward/bench/path"
	"github.com/nameward/nameward/bench/program"
	"github.com/nameward/nameward/bench/report"
	"github.com/nameward/nameward/bench/traffic"
)

// sections is what there is to measure, in the order of the page.
func sections() []report.Section {
	return slices.Concat(
		program.Sections(),
		path.Sections(),
		traffic.Sections(),
		node.Sections(),
		fleet.Sections(),
	)
}

const defaultOut = "docs/benchmarks.md"

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

// options are the command line.
type options struct {
	fast  bool
	names string
	only  string
	out   string
	list  bool
	soak  time.Duration
}

func parse(args []string, usage io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(usage)
	flags.BoolVar(&o.fast, "fast", false, "few rounds and small sizes: all of it in less than 5 minutes; then no page is written unless -out says where")
	flags.StringVar(&o.names, "names", "", "`file` of domain names, one a line, plain or .gz; without it, names alike real ones are made")
	flags.StringVar(&o.only, "only", "", "`sections` to measure, separated by commas; no page either")
	flags.StringVar(&o.out, "out", "", "page to write, plots beside it in the folder of the same name (default "+defaultOut+")")
	flags.DurationVar(&o.soak, "soak", time.Minute, "how long a fleet lives with changes and reports (fleet-soak)")
	flags.BoolVar(&o.list, "list", false, "say which sections there are")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("what is %q? Everything is said by flags: see -help", flags.Arg(0))
	}
	if o.out == "" && o.only == "" && !o.fast {
		o.out = defaultOut
	}
	return o, nil
}

func command(ctx context.Context, args []string, all []report.Section, out, log io.Writer) error {
	o, err := parse(args, log)
	if err != nil {
		return err
	}
	if o.list {
		for _, section := range all {
			fmt.Fprintln(out, section.Name)
		}
		return nil
	}
	chosen, err := choose(all, o.only)
	if err != nil {
		return err
	}
	page := report.Page{Machine: report.ThisMachine(ctx), Date: time.Now(), Fast: o.fast}
	fmt.Fprintln(log, page.Machine)
	config := report.Config{Fast: o.fast, Soak: o.soak, Log: log}
	if config.Names, page.Names, err = o.readNames(log); err != nil {
		return err
	}
	page.Outcomes, err = measure(ctx, chosen, config, out)
	if err != nil {
		return err
	}
	if o.out != "" {
		if err := page.Save(o.out); err != nil {
			return err
		}
		fmt.Fprintln(out, "written:", o.out)
	}
	if slices.ContainsFunc(page.Outcomes, func(o report.Outcome) bool { return o.Err != nil }) {
		return errFailed
	}
	return nil
}

// choose gives the sections of a list of names; an empty list chooses all.
func choose(all []report.Section, only string) (chosen []report.Section, err error) {
	if only == "" {
		return all, nil
	}
	var errs []error
	for name := range strings.SplitSeq(only, ",") {
		at := slices.IndexFunc(all, func(s report.Section) bool { return s.Name == strings.TrimSpace(name) })
		if at < 0 {
			errs = append(errs, fmt.Errorf("only: there is no section %q (-list says which there are)", name))
			continue
		}
		chosen = append(chosen, all[at])
	}
	return chosen, errors.Join(errs...)
}

// fastNames is enough for the sizes of a fast run.
const fastNames = 150_000

// readNames gives the names, and what the page says of them. Those of a file that has too few are
// supplemented.
func (o options) readNames(log io.Writer) (list []string, origin string, err error) {
	enough := names.Enough
	if o.fast {
		enough = fastNames
	}
	if o.names == "" {
		return names.Generate(enough), report.Thousands(float64(enough)) + ", made alike real ones", nil
	}
	list, leftOut, err := names.Read(o.names)
	if err != nil {
		return nil, "", err
	}
	fmt.Fprintf(log, "%d names; %d lines are none, or repeat one\n", len(list), leftOut)
	origin = report.Thousands(float64(len(list))) + " real ones, of a file"
	if len(list) < enough {
		origin += ", and " + report.Thousands(float64(enough-len(list))) + " made alike"
		list = names.Supplement(list, enough)
	}
	return list, origin, nil
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
		outcome := report.Outcome{Section: section.Name, Result: result, Err: err, Took: time.Since(start)}
		outcomes = append(outcomes, outcome)
		if err := outcome.Print(out); err != nil {
			return outcomes, fmt.Errorf("print: %w", err)
		}
	}
	return outcomes, nil
}
