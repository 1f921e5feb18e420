// Command kernels passes tests under other kernels, each in a virtual machine that needs no KVM. See
// docs/kernels.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

type settings struct {
	kernels     []kernel
	parts       []part
	cache, logs string
	atOnce      int
	memory      int
	limit       time.Duration
	verbose     bool
	skipOffline bool
}

func main() {
	s, err := parseFlags(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "kernels:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	passed, err := s.run(ctx)
	if errors.Is(err, errNoNetwork) && s.skipOffline {
		fmt.Fprintf(os.Stderr, "\n*** NOT TESTED under another kernel: %v\n*** Whoever merges this has to run `make kernels` elsewhere.\n\n", err)
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "kernels:", err)
	}
	if err != nil || !passed {
		os.Exit(1) //nolint:gocritic // nothing is left to stop
	}
}

func parseFlags(args []string) (*settings, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	s := &settings{}
	flags := flag.NewFlagSet("kernels", flag.ExitOnError)
	kernels := flags.String("kernels", "", "which, as in \"6.1 6.12-cloud\"; all of the matrix without")
	names := flags.String("parts", "", "of programs, nft and legacy; all without")
	slice := flags.Bool("slice", false, "run a short slice, under the first kernel of the matrix unless -kernels says otherwise")
	pkg := flags.String("package", "", "run the tests of this package alone, as in ./e2e")
	run := flags.String("run", "", "of these, the ones that match, as with go test")
	shell := flags.String("command", "", "run this in the guest's shell, in the repository, instead of tests")
	flags.StringVar(&s.cache, "cache", filepath.Join(cache, "nameward", "kernels"), "directory that keeps kernels")
	flags.StringVar(&s.logs, "logs", "bin/kernel-logs", "directory for what guests print")
	flags.IntVar(&s.atOnce, "at-once", runtime.NumCPU(), "how many guests run at once; each takes one CPU")
	flags.IntVar(&s.memory, "memory", 2048, "MiB of each guest")
	flags.DurationVar(&s.limit, "limit", 30*time.Minute, "for each guest")
	flags.BoolVar(&s.verbose, "v", false, "show what guests print")
	flags.BoolVar(&s.skipOffline, "skip-offline", false, "end with 0, and say so, when a kernel is not in the cache and no source of packages answers")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if *run != "" && *pkg == "" {
		return nil, errors.New("-run: say also of which -package")
	}
	var only *choice
	if *pkg != "" || *shell != "" {
		only = &choice{*pkg, *run, *shell}
	}
	var errs [2]error
	s.kernels, errs[0] = parseKernels(*kernels)
	s.parts, errs[1] = parts(words(*names), *slice, only)
	if *slice && *kernels == "" {
		s.kernels = matrix[:1]
	}
	return s, errors.Join(errs[:]...)
}

// run runs every part on every kernel, prints a line for each, and says whether all passed.
func (s *settings) run(ctx context.Context) (bool, error) {
	for _, dir := range []string{s.cache, s.logs} {
		if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // no secrets
			return false, err
		}
	}
	work, err := os.MkdirTemp("", "nameward-kernels-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(work) //nolint:errcheck // the last thing done
	ready, err := s.prepareKernels(ctx)
	if err != nil {
		return false, err
	}
	programs, root := filepath.Join(work, "programs"), filepath.Join(work, "root.cpio")
	if err := os.Mkdir(programs, 0o755); err != nil { //nolint:gosec // no secrets
		return false, err
	}
	if err := build(ctx, programs, packagesOf(s.parts)); err != nil {
		return false, err
	}
	if err := makeRoot(ctx, root, programs); err != nil {
		return false, fmt.Errorf("make the guests' root: %w", err)
	}
	return s.runGuests(ctx, ready, root, work), nil
}

func (s *settings) prepareKernels(ctx context.Context) ([]*bootable, error) {
	var ready []*bootable
	for _, k := range s.kernels {
		deb, err := fetch(ctx, s.cache, k)
		if err != nil {
			return nil, err
		}
		b, err := prepare(ctx, s.cache, deb)
		if err != nil {
			return nil, err
		}
		fmt.Printf("%-11s  is Linux %s\n", k, b.release)
		for _, module := range b.lacking {
			fmt.Printf("%-11s  has no module %s, which %s names\n", k, module, agentModules)
		}
		ready = append(ready, b)
	}
	return ready, nil
}

// runGuests runs a guest for each combination, some at once, and prints a line for each as it ends.
func (s *settings) runGuests(ctx context.Context, ready []*bootable, root, work string) bool {
	type ended struct {
		kernel kernel
		part   part
		guest  *guest
		result *result
	}
	echo := io.Discard
	if s.verbose {
		echo = os.Stdout
	}
	var waiting []ended
	for i, k := range s.kernels {
		for _, p := range s.parts {
			g := &guest{
				kernel: ready[i], part: p, root: root, dir: work, memory: s.memory, limit: s.limit, echo: echo,
				log: filepath.Join(s.logs, fmt.Sprintf("%s-%s.log", k, p.name)),
			}
			waiting = append(waiting, ended{k, p, g, nil})
		}
	}
	next, results := make(chan ended), make(chan ended)
	for range max(1, s.atOnce) {
		go func() {
			for e := range next {
				e.result = e.guest.run(ctx)
				results <- e
			}
		}()
	}
	go func() {
		defer close(next)
		for _, e := range waiting {
			next <- e
		}
	}()
	passed := true
	for range waiting {
		e := <-results
		fmt.Println(line(e.kernel, e.part, e.result))
		passed = tell(e.result, e.guest.log) && passed
	}
	return passed
}

// tell prints what is to be said below a line, and whether there is nothing bad.
func tell(r *result, log string) bool {
	for _, lack := range r.output.lacks {
		fmt.Println("    check:", lack)
	}
	for _, skipped := range r.output.skipped {
		fmt.Println("    skipped:", skipped)
	}
	faults := r.faults()
	for _, fault := range faults {
		fmt.Println("   ", fault)
	}
	if len(faults) > 0 {
		fmt.Println("    see", log)
	}
	return len(faults) == 0
}
