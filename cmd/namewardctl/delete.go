package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

func (p *program) deleteCommand() *cobra.Command {
	var ignoreMissing bool
	command := &cobra.Command{
		Use:   "delete NAME...",
		Short: "Delete policies and domain sets",
		Long: `delete deletes policies and domain sets, in the order given, each by its name. A domain set that
policies name is not deleted.`,
		Example: `  namewardctl delete policies/web-egress policies/audit-first
  namewardctl delete domainSets/saas`,
		Args: cobra.ArbitraryArgs,
		RunE: func(command *cobra.Command, args []string) error {
			names, err := parseNames(args, policiesCollection, domainSetsCollection)
			if err != nil {
				return usageError{err}
			}
			connection, err := p.dialServer()
			if err != nil {
				return err
			}
			defer connection.Close()
			var errs []error
			for _, name := range names {
				if err := deleteResource(command.Context(), connection, name, ignoreMissing); err != nil {
					errs = append(errs, fmt.Errorf("%s: %w", name, err))
					continue
				}
				errs = append(errs, p.print(name.String()+" deleted\n"))
			}
			return errors.Join(errs...)
		},
	}
	command.Flags().BoolVar(&ignoreMissing, "ignore-missing", false, "succeed for what does not exist")
	return command
}

func deleteResource(ctx context.Context, connection *grpc.ClientConn, name resourceName, ignoreMissing bool) (err error) {
	if name.collection == domainSetsCollection {
		request := &namewardv1.DeleteDomainSetRequest{Name: name.String(), AllowMissing: ignoreMissing}
		_, err = namewardv1.NewDomainSetServiceClient(connection).DeleteDomainSet(ctx, request)
		return err
	}
	request := &namewardv1.DeletePolicyRequest{Name: name.String(), AllowMissing: ignoreMissing}
	_, err = namewardv1.NewPolicyServiceClient(connection).DeletePolicy(ctx, request)
	return err
}
