package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/nameward/nameward/bench/names"
	"github.com/nameward/nameward/bench/report"
)

// options are the command line.
type options struct {
	fast   bool
	names  string
	only   string
	out    string
	list   bool
	render bool
	soak   time.Duration
}

func parse(args []string, usage io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(usage)
	flags.BoolVar(&o.fast, "fast", false, "few rounds and small sizes: all of it in less than 5 minutes; then no page is written unless -out says where")
	flags.StringVar(&o.names, "names", "", "`file` of domain names, one a line, plain or .gz; without it, names alike real ones are made")
	flags.StringVar(&o.only, "only", "", "`sections` to measure, separated by commas; on a page that -out names they take the place of what it has of them")
	flags.StringVar(&o.out, "out", "", "page to write, its results and plots beside it in the folder of the same name (default "+defaultOut+" if all is measured thoroughly)")
	flags.BoolVar(&o.render, "render", false, "write the page anew from the results beside it, and measure nothing")
	flags.DurationVar(&o.soak, "soak", time.Minute, "how long a fleet lives with changes and reports (fleet-soak)")
	flags.BoolVar(&o.list, "list", false, "say which sections there are")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("what is %q? Everything is said by flags: see -help", flags.Arg(0))
	}
	if o.render && (o.only != "" || o.fast) {
		return o, errors.New("render: nothing is measured, so that -only and -fast say nothing")
	}
	if o.out == "" && o.only == "" && !o.fast {
		o.out = defaultOut
	}
	return o, nil
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
		if !slices.ContainsFunc(chosen, func(s report.Section) bool { return s.Name == all[at].Name }) {
			chosen = append(chosen, all[at])
		}
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
