package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
)

// Exit codes that scripts rely on.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
	exitFound  = 3
)

// errDenied says that explain found DENY. It is a result, not a fault, and prints no message.
var errDenied = errors.New("the connection is denied")

// usageError is a fault of the command line or of the settings, not of what the command did.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

// program is one run of namewardctl and everything that it touches outside itself.
type program struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	now            func() time.Time
	lookupEnv      func(string) (string, bool)
	readFile       func(string) ([]byte, error)
	options        options
	// incomplete are the servers that were said to be missing in what was listed.
	incomplete []string
	// parsed is set once arguments and flags are accepted: cobra's own errors before that are usage.
	parsed bool
}

// Run executes namewardctl with args (without the program's name) and returns its exit code.
func Run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	p := &program{
		stdin: stdin, stdout: stdout, stderr: stderr,
		now: time.Now, lookupEnv: os.LookupEnv, readFile: os.ReadFile,
	}
	return p.run(ctx, args)
}

func (p *program) run(ctx context.Context, args []string) int {
	root := p.rootCommand()
	root.SetArgs(args)
	command, err := root.ExecuteContextC(ctx)
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errDenied), errors.Is(err, errDiffers):
		return exitFound
	}
	_, _ = fmt.Fprintf(p.stderr, "namewardctl: %s\n", describeError(err, p.options))
	var usage usageError
	if !p.parsed || errors.As(err, &usage) {
		_, _ = fmt.Fprintf(p.stderr, "Run \"%s --help\" for usage.\n", command.CommandPath())
		return exitUsage
	}
	return exitFailed
}

func (p *program) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "namewardctl",
		Short: "Say which domain names the workloads of a fleet may reach",
		Long: `namewardctl writes policies and domain sets to a Nameward policy server, and reads them, nodes
and mappings from it, or nodes and mappings from one node's agent over its Unix socket (--agent).

Each global flag is also an environment variable (NAMEWARD_SERVER, NAMEWARD_INSECURE, …)
and a key of the YAML file that --config names; a flag goes before a variable, and a
variable before the file.

Exit codes: 0 done, 1 failed, 2 wrong usage; explain exits 0 for ALLOW and 3 for DENY, diff 3 when there
are differences.`,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(command *cobra.Command, _ []string) error {
			if err := p.options.complete(command, p.lookupEnv, p.readFile); err != nil {
				return err
			}
			p.parsed = true
			return nil
		},
	}
	root.SetIn(p.stdin)
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	p.options.bind(root)
	root.AddCommand(
		p.applyCommand(), p.diffCommand(), p.importCommand(), p.getCommand(), p.describeCommand(), p.deleteCommand(),
		p.watchCommand(), p.topCommand(), p.explainCommand(), p.ruleSetCommand(), p.statusCommand(), p.pkiCommand(), p.versionCommand(),
	)
	p.completionUsage(root)
	return root
}
