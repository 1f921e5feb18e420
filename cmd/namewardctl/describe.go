package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
)

func (p *program) describeCommand() *cobra.Command {
	matching := ""
	command := &cobra.Command{
		Use:   "describe NAME...",
		Short: "Show all of a policy, a domain set or a node",
		Long: `describe shows all that is known of resources, each by its name. With -o json or yaml it
prints the resources themselves, a document each: what it prints of a policy or a domain set can
be applied again.`,
		Example: `  namewardctl describe policies/web-egress
  namewardctl describe domainSets/saas
  namewardctl describe domainSets/saas --matching registry.docker.io
  namewardctl describe nodes/lab`,
		Args: cobra.ArbitraryArgs,

		ValidArgsFunction: p.completeNames(policiesCollection, domainSetsCollection, nodesCollection),
		RunE: func(command *cobra.Command, args []string) error {
			names, err := parseNames(args, policiesCollection, domainSetsCollection, nodesCollection)
			if err != nil {
				return usageError{err}
			}
			for _, name := range names {
				if matching != "" && name.collection != domainSetsCollection {
					return usagef("--matching: selects domain patterns of domain sets, and %s is none", name)
				}
			}
			return p.describe(command.Context(), names, matching)
		},
	}
	command.Flags().StringVar(&matching, "matching", "", "of domain sets: only the domain patterns that match this name")
	p.options.bindOutput(command)
	return command
}

func (p *program) describe(ctx context.Context, names []resourceName, matching string) error {
	var (
		messages []proto.Message
		texts    []string
		errs     []error
	)
	for _, name := range names {
		message, text, err := p.describeOne(ctx, name, matching)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		messages, texts = append(messages, message), append(texts, text)
	}
	if p.options.output.structured() {
		return errors.Join(append(errs, printMessages(p, messages))...)
	}
	for i, text := range texts {
		if i > 0 {
			text = "\n" + text
		}
		errs = append(errs, p.print(text))
	}
	return errors.Join(errs...)
}

func (p *program) describeOne(ctx context.Context, name resourceName, matching string) (proto.Message, string, error) {
	switch name.collection {
	case policiesCollection:
		policies, err := p.listPolicies(ctx, []string{name.String()})
		if err != nil {
			return nil, "", err
		}
		return policies[0], p.describePolicy(policies[0]), nil
	case domainSetsCollection:
		set, err := p.domainSetMatching(ctx, name.String(), matching)
		if err != nil {
			return nil, "", err
		}
		users, err := p.usersOf(ctx, name.String())
		return set, p.describeDomainSet(set, users), err
	}
	nodes, err := p.listNodes(ctx, []string{name.String()}, filter{})
	if err != nil {
		return nil, "", err
	}
	return nodes[0], p.describeNode(nodes[0]), nil
}

// parseNames reads resource names, all of them in one of the collections. All faults come at once.
func parseNames(args []string, collections ...string) ([]resourceName, error) {
	if len(args) == 0 {
		return nil, errors.New("a resource name must be given, such as policies/web-egress")
	}
	var (
		names []resourceName
		errs  []error
	)
	for _, arg := range args {
		name, err := parseResourceName(arg)
		if err == nil {
			name.collection, err = oneOf(name, collections)
		}
		names, errs = append(names, name), append(errs, err)
	}
	return names, errors.Join(errs...)
}

func oneOf(name resourceName, collections []string) (string, error) {
	collection, err := parseCollection(name.collection)
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	for _, known := range collections {
		if known == collection {
			return collection, nil
		}
	}
	return "", fmt.Errorf("%s: not supported for %s", name, collection)
}
