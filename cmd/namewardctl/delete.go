package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

func (p *program) deleteCommand() *cobra.Command {
	var ignoreMissing bool
	command := &cobra.Command{
		Use:     "delete policies/NAME...",
		Short:   "Delete policies",
		Example: "  namewardctl delete policies/web-egress policies/audit-first",
		Args:    cobra.ArbitraryArgs,
		RunE: func(command *cobra.Command, args []string) error {
			names, err := parseNames(args, policiesCollection)
			if err != nil {
				return usageError{err}
			}
			connection, err := p.dialServer()
			if err != nil {
				return err
			}
			defer connection.Close()
			client := namewardv1.NewPolicyServiceClient(connection)
			var errs []error
			for _, name := range names {
				request := &namewardv1.DeletePolicyRequest{Name: name.String(), AllowMissing: ignoreMissing}
				if _, err := client.DeletePolicy(command.Context(), request); err != nil {
					errs = append(errs, fmt.Errorf("%s: %w", name, err))
					continue
				}
				errs = append(errs, p.print(name.String()+" deleted\n"))
			}
			return errors.Join(errs...)
		},
	}
	command.Flags().BoolVar(&ignoreMissing, "ignore-missing", false, "succeed for a policy that does not exist")
	return command
}
