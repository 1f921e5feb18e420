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
		Short: "Delete policies and domain sets, and forget nodes",
		Long: `delete deletes policies and domain sets, in the order given, each by its name. A domain set that
policies name is not deleted. A node that will not come back is forgotten, with its mappings and
denied connections; not while its agent is connected.`,
		Example: `  namewardctl delete policies/web-egress policies/audit-first
  namewardctl delete domainSets/saas
  namewardctl delete nodes/build-7`,
		Args: cobra.ArbitraryArgs,

		ValidArgsFunction: p.completeNames(policiesCollection, domainSetsCollection, nodesCollection),
		RunE: func(command *cobra.Command, args []string) error {
			names, err := parseNames(args, policiesCollection, domainSetsCollection, nodesCollection)
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
				err := deleteResource(command.Context(), connection, name)
				switch {
				case isNotFound(err) && ignoreMissing:
					p.complain(name.String() + ": not found")
				case err != nil:
					errs = append(errs, fmt.Errorf("%s: %w", name, err))
				default:
					errs = append(errs, p.print(name.String()+" deleted\n"))
				}
			}
			return errors.Join(errs...)
		},
	}
	command.Flags().BoolVar(&ignoreMissing, "ignore-missing", false, "succeed for what does not exist")
	return command
}

func deleteResource(ctx context.Context, connection *grpc.ClientConn, name resourceName) (err error) {
	switch name.collection {
	case domainSetsCollection:
		request := &namewardv1.DeleteDomainSetRequest{Name: name.String()}
		_, err = namewardv1.NewDomainSetServiceClient(connection).DeleteDomainSet(ctx, request)
		return err
	case nodesCollection:
		request := &namewardv1.DeleteNodeRequest{Name: name.String()}
		_, err = namewardv1.NewNodeServiceClient(connection).DeleteNode(ctx, request)
		return err
	}
	request := &namewardv1.DeletePolicyRequest{Name: name.String()}
	_, err = namewardv1.NewPolicyServiceClient(connection).DeletePolicy(ctx, request)
	return err
}
