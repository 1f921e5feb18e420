package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
)

func (p *program) getCommand() *cobra.Command {
	var filter filter
	command := &cobra.Command{
		Use:   "get policies|domainsets|nodes|mappings|flows|audit [NAME...]",
		Short: "List policies, domain sets, nodes, mappings, denied connections or audit events",
		Example: `  namewardctl get policies
  namewardctl get policies web-egress -o yaml
  namewardctl get domainsets
  namewardctl get mappings --domain '*.docker.io' --node lab
  namewardctl get mappings --agent /run/nameward/agent.sock
  namewardctl get flows --policy web-egress --mode AUDIT
  namewardctl get audit --resource policies/web-egress --since 24h`,
		ValidArgsFunction: p.completeGet([]string{policiesCollection, "domainsets", nodesCollection, mappingsCollection, "flows", "audit"}),

		Args: cobra.ArbitraryArgs,
		RunE: func(command *cobra.Command, args []string) error {
			collection, names, err := parseGetArguments(args)
			if err != nil {
				return usageError{err}
			}
			if err := errors.Join(filter.fits(collection), filter.instead(names)); err != nil {
				return err
			}
			switch limited := command.Flags().Changed("limit"); {
			case limited && collection != auditCollection:
				return usagef("--limit: limits audit events, not %s", plural(collection))
			case filter.limit < 0:
				return usagef("--limit: %d is less than zero", filter.limit)
			}
			return p.get(command.Context(), collection, names, filter)
		},
	}
	filter.bind(command.Flags())
	filter.bindAudit(command.Flags())
	p.completeFilter(command)
	p.completeValues(command, "outcome", "committed", "not-committed", "denied")
	p.options.bindOutput(command)
	return command
}

func (p *program) get(ctx context.Context, collection string, names []string, filter filter) error {
	switch collection {
	case policiesCollection:
		selected, err := filter.policies()
		if err != nil {
			return err
		}
		policies, err := p.selectPolicies(ctx, names, selected)
		return printResources(p, collection, policies, err, p.policiesTable)
	case domainSetsCollection:
		sets, err := p.listDomainSets(ctx, names)
		return printResources(p, collection, sets, err, p.domainSetsTable)
	case nodesCollection:
		nodes, err := p.listNodes(ctx, names, filter)
		return printResources(p, collection, nodes, err, p.nodesTable)
	case flowsCollection:
		message, err := filter.flows()
		if err != nil {
			return err
		}
		flows, err := p.listFlows(ctx, message)
		return printResources(p, collection, flows, err, p.flowsTable)
	case auditCollection:
		message, err := filter.audit(p.now())
		if err != nil {
			return err
		}
		events, err := p.listAudit(ctx, message, filter.limit)
		return printResources(p, collection, events, err, p.auditTable)
	}
	message, err := filter.mappings()
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
		p.complain("No " + plural(collection) + ".")
		return nil
	}
	return errors.Join(fault, p.print(tabulate(items).render(p.painter())))
}

// parseGetArguments reads "policies", "policies web-egress" and "policies/web-egress" alike.
func parseGetArguments(args []string) (collection string, names []string, err error) {
	if len(args) == 0 {
		return "", nil, errors.New("what to get must be given: policies, domainsets, nodes, mappings, flows or audit")
	}
	if name, err := parseResourceName(args[0]); err == nil {
		args = append([]string{name.collection}, args...)
	}
	collection, err = parseCollection(args[0])
	if err != nil {
		return "", nil, err
	}
	if (collection == mappingsCollection || collection == flowsCollection) && len(args) > 1 {
		return "", nil, fmt.Errorf("%s have no names: select them with --domain, --address and --node", plural(collection))
	}
	if collection == auditCollection && len(args) > 1 {
		return "", nil, errors.New("audit events are not got by name: select them with --resource, --identity, --outcome and --since")
	}
	var errs []error
	for _, arg := range args[1:] {
		name, err := inCollection(collection, arg)
		names, errs = append(names, name), append(errs, err)
	}
	return collection, names, errors.Join(errs...)
}
