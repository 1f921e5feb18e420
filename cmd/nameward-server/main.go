// Command nameward-server is the policy server.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/nameward/nameward/cmd/settings"
	"github.com/nameward/nameward/controlplane"
)

const (
	exitFailed = 1
	exitUsage  = 2
)

// usageError is a fault of the command line or the configuration.
type usageError struct{ error }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the program at once.
	context.AfterFunc(ctx, stop)
	err := command().ExecuteContext(ctx)
	stop()
	if err == nil {
		return
	}
	fmt.Fprintf(os.Stderr, "nameward-server: %v\n", err)
	if _, ok := errors.AsType[usageError](err); ok {
		os.Exit(exitUsage)
	}
	os.Exit(exitFailed)
}

func noArgs(command *cobra.Command, args []string) error {
	if err := cobra.NoArgs(command, args); err != nil {
		return usageError{err}
	}
	return nil
}

// version is what the go command stamped into the binary.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

func command() *cobra.Command {
	cfg := controlplane.DefaultConfig()
	root := &cobra.Command{
		Use:   "nameward-server",
		Short: "The policy server: holds policies, compiles them for each node, streams them to the agents",
		Long:  "With no command it runs the server.\n\nEach flag is also an environment variable (NAMEWARD_DATA_DIR for --data-dir) and a key of the file that --config names (data-dir).\nThe command line goes before the environment, the environment before the file.",
		Args:  noArgs, Version: version(),
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(command *cobra.Command, _ []string) error {
			if err := settings.Complete(command.Flags(), settings.Source{LookupEnv: os.LookupEnv, ReadFile: os.ReadFile}); err != nil {
				return usageError{err}
			}
			if err := cfg.Validate(); err != nil {
				return usageError{err}
			}
			return controlplane.Run(command.Context(), cfg, cfg.NewLog(os.Stderr))
		},
	}
	root.AddCommand(backupCommand(), restoreCommand(), migrateCommand())
	cfg.Bind(root.Flags())
	root.Flags().String(settings.ConfigFlag, "", "YAML file with values for these flags")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	return root
}
