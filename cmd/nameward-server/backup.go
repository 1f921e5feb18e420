package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/nameward/nameward/cmd/settings"
	"github.com/nameward/nameward/controlplane"
)

// standard is the name of standard input and output.
const standard = "-"

func backupCommand() *cobra.Command {
	dataDir := controlplane.DefaultConfig().DataDir
	command := &cobra.Command{
		Use:   "backup FILE",
		Short: "Write a backup of the data directory, while the server runs or not",
		Long: `backup writes policies, domain sets and nodes as they are at one moment: everything that the server
acknowledged before. A server that runs on the directory is asked for it over its socket there, so this is for
whoever may read the directory. FILE is there when the backup is whole and was read back; with - it goes to
standard output. Keep it as secret as the directory.`,
		Example: `  nameward-server backup --data-dir /var/lib/nameward-server nameward-$(date +%F).db`,
		Args:    exactlyOneFile,
		RunE: func(command *cobra.Command, args []string) error {
			if err := complete(command, "data-dir"); err != nil {
				return err
			}
			if args[0] == standard {
				return controlplane.Backup(command.Context(), dataDir, command.OutOrStdout())
			}
			meta, err := controlplane.BackupTo(command.Context(), dataDir, args[0])
			if err != nil {
				return err
			}
			fmt.Fprintf(command.ErrOrStderr(), "%s: revision %d of store %s\n", args[0], meta.Revision, meta.StoreID)
			return nil
		},
	}
	bindDataDir(command, &dataDir)
	return command
}

func restoreCommand() *cobra.Command {
	dataDir := controlplane.DefaultConfig().DataDir
	replace := false
	command := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make a data directory of a backup",
		Long: `restore makes the store of a data directory that of a backup, - for standard input. The backup is read
whole before anything changes. It is refused while a server runs on the directory. A store that is there already
is left alone, or with --replace put aside as store.db.before-restore.

The store gets another id, since what happens from here on is another history than that of the backup: agents and
watches begin with a snapshot.`,
		Example: `  nameward-server restore --data-dir /var/lib/nameward-server nameward-2026-11-02.db`,
		Args:    exactlyOneFile,
		RunE: func(command *cobra.Command, args []string) error {
			if err := complete(command, "data-dir"); err != nil {
				return err
			}
			backup := command.InOrStdin()
			if args[0] != standard {
				file, err := os.Open(args[0])
				if err != nil {
					return fmt.Errorf("read backup: %w", err)
				}
				defer file.Close()
				backup = file
			}
			meta, err := controlplane.Restore(dataDir, backup, replace)
			if err != nil {
				return err
			}
			fmt.Fprintf(command.ErrOrStderr(), "%s: restored to revision %d, as store %s\n", dataDir, meta.Revision, meta.StoreID)
			return nil
		},
	}
	bindDataDir(command, &dataDir)
	command.Flags().BoolVar(&replace, "replace", false, "put a store that is there aside")
	return command
}

func bindDataDir(command *cobra.Command, dataDir *string) {
	command.Flags().StringVar(dataDir, "data-dir", *dataDir, "data directory of the server")
	bindConfig(command)
}

// bindConfig declares the file, of which a command takes the settings that it has, and leaves those of the server alone.
func bindConfig(command *cobra.Command) {
	command.Flags().String(settings.ConfigFlag, "", "YAML file of the server")
}

// complete takes settings of the server from where the server does. What else a command asks for stands on its command
// line alone.
func complete(command *cobra.Command, names ...string) error {
	shared := pflag.NewFlagSet(command.Name(), pflag.ContinueOnError)
	for _, name := range append(names, settings.ConfigFlag) {
		shared.AddFlag(command.Flags().Lookup(name))
	}
	from := settings.Source{LookupEnv: os.LookupEnv, ReadFile: os.ReadFile}
	cfg, ofServer := controlplane.DefaultConfig(), pflag.NewFlagSet("server", pflag.ContinueOnError)
	cfg.Bind(ofServer)
	ofServer.VisitAll(func(f *pflag.Flag) {
		if shared.Lookup(f.Name) == nil {
			from.Silent = append(from.Silent, f.Name)
		}
	})
	if err := settings.Complete(shared, from); err != nil {
		return usageError{err}
	}
	return nil
}

func exactlyOneFile(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usageError{fmt.Errorf("one file must be given, - for standard input or output")}
	}
	return nil
}
