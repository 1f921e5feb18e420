package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
)

func (p *program) getCommand() *cobra.Command {
	var filter mappingFilter
	command := &cobra.Command{
		Use:   "get policies|nodes|mappings [NAME...]",
		Short: "List policies, nodes or mappings",
		Example: `  namewardctl get policies
  namewardctl get policies web-egress -o yaml
  namewardctl get mappings --domain '*.docker.io' --node lab
  namewardctl get mappings --agent /run/nameward/agent.sock`,
		ValidArgs: []string{policiesCollection, nodesCollection, mappingsCollection},
		Args:      cobra.ArbitraryArgs,
		RunE: func(command *cobra.Command, args []string) error {
			collection, names, err := parseGetArguments(args)
			if err != nil {
				return usageError{err}
			}
			if filter.set() && collection != mappingsCollection {
				return usagef("--domain, --address and --node select mappings, not %s", collection)
			}
			return p.get(command.Context(), collection, names, filter)
		},
	}
	filter.bind(command.Flags())
	p.options.bindOutput(command)
	return command
}

func (p *program) get(ctx context.Context, collection string, names []string, filter mappingFilter) error {
	switch collection {
	case policiesCollection:
		policies, err := p.listPolicies(ctx, names)
		return printResources(p, collection, policies, err, p.policiesTable)
	case nodesCollection:
		nodes, err := p.listNodes(ctx, names)
		return printResources(p, collection, nodes, err, p.nodesTable)
	}
	message, err := filter.message()
	if err != nil {
		return err
	}
	mappings, err := p.listMappings(ctx, message)
	return printResources(p, collection, mappings, err, p.mappingsTable)
}

// printResources prints what could be read, and returns the fault of what could not.
func printResources[T proto.Message](p *program, collection string, items []T, fault error, tabulate func([]T) *table) error {
	switch {
	case fault != nil && len(items) == 0:
		return fault
	case p.options.output.structured():
		return errors.Join(fault, printList(p, collection, items))
	case len(items) == 0:
		p.complain("No " + collection + ".")
		return nil
	}
	return errors.Join(fault, p.print(tabulate(items).render(p.painter())))
}

// parseGetArguments reads "policies", "policies web-egress" and "policies/web-egress" alike.
func parseGetArguments(args []string) (collection string, names []string, err error) {
	if len(args) == 0 {
		return "", nil, errors.New("what to get must be given: policies, nodes or mappings")
	}
	if name, err := parseResourceName(args[0]); err == nil {
		args = append([]string{name.collection}, args...)
	}
	collection, err = parseCollection(args[0])
	if err != nil {
		return "", nil, err
	}
	if collection == mappingsCollection && len(args) > 1 {
		return "", nil, fmt.Errorf("mappings have no names: select them with --domain, --address and --node")
	}
	var errs []error
	for _, arg := range args[1:] {
		name, err := inCollection(collection, arg)
		names, errs = append(names, name), append(errs, err)
	}
	return collection, names, errors.Join(errs...)
}
