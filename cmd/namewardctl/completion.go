package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

const (
	// completionTime bounds what pressing the key costs where nobody answers.
	completionTime = 2 * time.Second
	// completionNames bounds the names that are offered.
	completionNames = 1000
)

type completion = func(command *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective)

// completionUsage has the command that cobra adds say what is wrong with a shell that it does not know.
func (p *program) completionUsage(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	command, _, err := root.Find([]string{"completion"})
	if err != nil {
		panic(err) // there is no such command
	}
	command.Args = cobra.ArbitraryArgs
	command.RunE = func(command *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usagef("%q is not bash, zsh, fish or powershell", args[0])
		}
		return command.Help()
	}
}

// completeNames completes resource names of some collections, by asking the server.
func (p *program) completeNames(collections ...string) completion {
	return func(command *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		var names []string
		for _, collection := range collections {
			prefix := collection + "/"
			switch {
			case strings.HasPrefix(begun, prefix):
				names = append(names, p.namesIn(command, collection)...)
			case strings.HasPrefix(prefix, begun):
				names = append(names, prefix)
			}
		}
		names = slices.DeleteFunc(names, func(name string) bool { return slices.Contains(args, name) })
		directive := cobra.ShellCompDirectiveNoFileComp
		if len(names) > 0 && !slices.ContainsFunc(names, func(name string) bool { return !strings.HasSuffix(name, "/") }) {
			directive |= cobra.ShellCompDirectiveNoSpace // collections: the name is to follow
		}
		return names, directive
	}
}

// completeGet completes the kind of resource, then names of that kind.
func (p *program) completeGet(kinds []string) completion {
	return func(command *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return kinds, cobra.ShellCompDirectiveNoFileComp
		}
		collection, err := parseCollection(args[0])
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return p.idsIn(command, collection), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeFlag completes the ids of a collection as values of a flag.
func (p *program) completeFlag(command *cobra.Command, flag, collection string) {
	p.completeFlagBy(command, flag, func(command *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return p.idsIn(command, collection), cobra.ShellCompDirectiveNoFileComp
	})
}

// completeFilter completes the flags that select.
func (p *program) completeFilter(command *cobra.Command) {
	p.completeFlag(command, "node", nodesCollection)
	p.completeFlag(command, "policy", policiesCollection)
	p.completeFlag(command, "domain-set", domainSetsCollection)
	p.completeValues(command, "mode", "ENFORCE", "AUDIT", "DISABLED")
	p.completeValues(command, "state", "current", "behind", "degraded", "failed", "disconnected")
}

// completeValues completes a flag that takes one of a few words.
func (p *program) completeValues(command *cobra.Command, flag string, values ...string) {
	p.completeFlagBy(command, flag, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return values, cobra.ShellCompDirectiveNoFileComp
	})
}

func (p *program) completeFlagBy(command *cobra.Command, flag string, complete completion) {
	if err := command.RegisterFlagCompletionFunc(flag, complete); err != nil {
		panic(err) // there is no such flag
	}
}

func (p *program) idsIn(command *cobra.Command, collection string) []string {
	names := p.namesIn(command, collection)
	for i, name := range names {
		names[i] = strings.TrimPrefix(name, collection+"/")
	}
	return names
}

// namesIn returns the first names of a collection; none where the server cannot be asked, for a completion has
// nowhere to complain.
func (p *program) namesIn(command *cobra.Command, collection string) []string {
	// What completes runs none of the command's hooks.
	if err := p.options.complete(command, p.lookupEnv, p.readFile); err != nil {
		return nil
	}
	ctx := command.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, completionTime)
	defer cancel()
	connection, err := p.dialServer()
	if err != nil {
		return nil
	}
	defer connection.Close()
	names, err := allPages(func(token string) (names []string, next string, err error) {
		switch collection {
		case policiesCollection:
			var page *namewardv1.ListPoliciesResponse
			page, err = namewardv1.NewPolicyServiceClient(connection).ListPolicies(ctx, &namewardv1.ListPoliciesRequest{PageSize: pageSize, PageToken: token})
			names, next = namesOf(page.GetPolicies()), page.GetNextPageToken()
		case domainSetsCollection:
			var page *namewardv1.ListDomainSetsResponse
			page, err = namewardv1.NewDomainSetServiceClient(connection).ListDomainSets(ctx, &namewardv1.ListDomainSetsRequest{PageSize: pageSize, PageToken: token})
			names, next = namesOf(page.GetDomainSets()), page.GetNextPageToken()
		case nodesCollection:
			var page *namewardv1.ListNodesResponse
			page, err = namewardv1.NewNodeServiceClient(connection).ListNodes(ctx, &namewardv1.ListNodesRequest{PageSize: pageSize, PageToken: token})
			names, next = namesOf(page.GetNodes()), page.GetNextPageToken()
		}
		return names, next, err
	})
	if err != nil {
		return nil
	}
	return names[:min(len(names), completionNames)]
}

func namesOf[R interface{ GetName() string }](resources []R) []string {
	names := make([]string, 0, len(resources))
	for _, resource := range resources {
		names = append(names, resource.GetName())
	}
	return names
}
