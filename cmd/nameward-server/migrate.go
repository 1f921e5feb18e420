package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/nameward/nameward/controlplane"
)

func migrateCommand() *cobra.Command {
	cfg := controlplane.DefaultConfig()
	var from, to string
	command := &cobra.Command{
		Use:   "migrate --from PLACE --to PLACE",
		Short: "Copy policies, domain sets and nodes between a data directory and etcd",
		Long: `migrate copies a store, exactly, to a place that has none, and reads both again to compare them. A PLACE is
bolt:DIR, a data directory, or etcd:HOST:PORT,HOST:PORT,…/PREFIX/ (without a prefix, /nameward/). It is refused
while a server runs on either, and where the target holds anything.

The copy has the same store id and the same revisions: agents and watches go on where they were. Start servers on
the copy alone, and put the source away: two stores of one id that both change are two histories that agents cannot
tell apart.`,
		Example: `  nameward-server migrate --from bolt:/var/lib/nameward-server --to etcd:10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379/nameward/
  nameward-server migrate --from etcd:10.0.0.1:2379/nameward/ --to bolt:/var/lib/nameward-server`,
		Args: noArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if from == "" || to == "" {
				return usageError{fmt.Errorf("both --from and --to must be set")}
			}
			if err := complete(command, "etcd-ca", "etcd-cert", "etcd-key"); err != nil {
				return err
			}
			meta, err := controlplane.Migrate(command.Context(), cfg, from, to)
			if errors.Is(err, controlplane.ErrPlace) {
				return usageError{err}
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(command.ErrOrStderr(), "%s: revision %d of store %s, read back and compared\n", to, meta.Revision, meta.StoreID)
			return nil
		},
	}
	flags := command.Flags()
	flags.StringVar(&from, "from", "", "store to copy, bolt:DIR or etcd:HOST:PORT,…/PREFIX/")
	flags.StringVar(&to, "to", "", "where to, in the same form; there must be nothing")
	cfg.BindEtcdTLS(flags)
	bindConfig(command)
	return command
}
