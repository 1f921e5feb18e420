package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/nameward/nameward/dataplane"
)

const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// errNotMet says that check found something. It is a result, not a fault, and prints no message.
var errNotMet = errors.New("a requirement is not met")

// usageError is a fault of the command line, the environment or the file.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// program is one run of the agent's command line.
type program struct {
	stdout, stderr io.Writer
	lookupEnv      func(string) (string, bool)
	readFile       func(string) ([]byte, error)
	hostname       func() (string, error)
	cfg            dataplane.Config
	output         string
	parsed         bool // cobra's own errors before that are usage
}

// Run executes the agent with args, without the program's name, and returns its exit code.
func Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	p := &program{
		stdout: stdout, stderr: stderr,
		lookupEnv: os.LookupEnv, readFile: os.ReadFile, hostname: os.Hostname, cfg: dataplane.DefaultConfig(),
	}
	return p.run(ctx, args)
}

func (p *program) run(ctx context.Context, args []string) int {
	root := p.command()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var usage usageError
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errNotMet):
		return exitFailed
	case errors.As(err, &usage) || !p.parsed:
		fmt.Fprintln(p.stderr, "nameward-agent:", err)
		return exitUsage
	default:
		fmt.Fprintln(p.stderr, "nameward-agent:", err)
		return exitFailed
	}
}

func (p *program) command() *cobra.Command {
	runIt := func(command *cobra.Command, _ []string) error { return p.runAgent(command) }
	root := &cobra.Command{
		Use: "nameward-agent", Short: "Enforce domain policies on this node", Version: dataplane.Version(),
		Args: cobra.NoArgs, RunE: runIt, SilenceUsage: true, SilenceErrors: true,
		PersistentPreRunE: func(command *cobra.Command, _ []string) error {
			p.parsed = true
			return p.complete(command)
		},
	}
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	p.bind(root.PersistentFlags())
	check := &cobra.Command{
		Use: "check", Short: "Say whether this machine can run an agent, and what to do if not",
		Args: cobra.NoArgs, RunE: func(command *cobra.Command, _ []string) error { return p.check(command) },
	}
	check.Flags().StringVarP(&p.output, "output", "o", "table", "table or json")
	root.AddCommand(
		&cobra.Command{Use: "run", Short: "Run the agent (the default)", Args: cobra.NoArgs, RunE: runIt},
		check,
		&cobra.Command{
			Use: "cleanup", Short: "Remove every rule, pin and file that an agent made on this machine",
			Args: cobra.NoArgs, RunE: func(command *cobra.Command, _ []string) error { return p.cleanup(command) },
		},
	)
	return root
}

func (p *program) runAgent(command *cobra.Command) error {
	certified, err := p.nameNode(command.Context())
	if err != nil {
		return err
	}
	if err := p.cfg.Validate(); err != nil {
		return usageError{err}
	}
	if certified != nil {
		p.logger().Warn("node called by its host name, since its certificate cannot be read and --node-name is not set", "node", p.cfg.NodeName, "err", certified)
	}
	p.cfg.NotifySocket, _ = p.lookupEnv("NOTIFY_SOCKET")
	err = dataplane.Run(command.Context(), p.cfg, p.logger())
	if unmet, ok := errors.AsType[*dataplane.RequirementsError](err); ok {
		if err := dataplane.WriteTable(p.stderr, unmet.Requirements); err != nil {
			return err //nolint:wrapcheck // of our own output
		}
	}
	return err //nolint:wrapcheck // it says what it did
}

// nameNode fills in --node-name: from the certificate, since the server goes by it, else from the machine. unread is why
// the certificate could not be asked.
func (p *program) nameNode(ctx context.Context) (unread, err error) {
	if p.cfg.NodeName != "" {
		return nil, nil
	}
	if p.cfg.NodeName, unread = p.cfg.CertifiedNodeName(ctx); p.cfg.NodeName != "" {
		return nil, nil
	}
	if p.cfg.NodeName, err = p.hostname(); err != nil {
		return nil, fmt.Errorf("read host name, since --node-name is not set: %w", err)
	}
	return unread, nil
}

func (p *program) logger() *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(p.cfg.LogLevel)); err != nil {
		panic(err) // Validate accepts no other
	}
	options := &slog.HandlerOptions{Level: level}
	if p.cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(p.stderr, options))
	}
	return slog.New(slog.NewTextHandler(p.stderr, options))
}

func (p *program) check(command *cobra.Command) error {
	if err := p.cfg.ValidateNode(); err != nil {
		return usageError{err}
	}
	write := map[string]func(io.Writer, []dataplane.Requirement) error{"table": dataplane.WriteTable, "json": dataplane.WriteJSON}[p.output]
	if write == nil {
		return usageError{fmt.Errorf("output: %q is neither table nor json", p.output)}
	}
	requirements := dataplane.Check(command.Context(), p.cfg)
	if err := write(p.stdout, requirements); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if !dataplane.AllMet(requirements) {
		return errNotMet
	}
	return nil
}

func (p *program) cleanup(command *cobra.Command) error {
	if err := p.cfg.ValidatePaths(); err != nil {
		return usageError{err}
	}
	removed, err := dataplane.Cleanup(command.Context(), p.cfg)
	for _, name := range removed {
		fmt.Fprintln(p.stdout, "removed", name)
	}
	if err == nil && len(removed) == 0 {
		fmt.Fprintln(p.stdout, "nothing to remove")
	}
	return err //nolint:wrapcheck // it says what it did
}
