package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"

	"github.com/nameward/nameward/api/domain"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

// errDiffers says that diff found differences. It is a result, not a fault, and prints no message.
var errDiffers = errors.New("the documents differ from the server")

func (p *program) diffCommand() *cobra.Command {
	var paths []string
	command := &cobra.Command{
		Use:   "diff -f FILE",
		Short: "Say what apply would change",
		Long: `diff compares the policies and domain sets of the files with those on the server, as apply would write
them, and prints the difference of each in unified form; with -o json or yaml what is and what would be. The
documents are checked as apply checks them, and nothing is written.

It exits with 0 when apply would change nothing, and with 3 when it would.`,
		Example: `  namewardctl diff -f examples/web-egress.yaml`,
		Args:    cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if len(paths) == 0 {
				return usagef("--filename: must be set; - is standard input")
			}
			return p.diff(command.Context(), paths)
		},
	}
	command.Flags().StringArrayVarP(&paths, "filename", "f", nil, "file to compare, - for standard input (repeatable)")
	p.options.bindOutput(command)
	return command
}

func (p *program) diff(ctx context.Context, paths []string) error {
	connection, err := p.dialServer()
	if err != nil {
		return err
	}
	defer connection.Close()
	manifests, unread := p.readManifests(paths)
	a := p.newApplier(connection)
	plans, err := a.plan(ctx, manifests)
	if err := errors.Join(unread, err); err != nil {
		return err
	}
	var found []difference
	for _, plan := range plans {
		if plan.outcome == outcomeUnchanged {
			continue
		}
		one, err := p.differenceOf(ctx, plan)
		if err != nil {
			return fmt.Errorf("%s: %w", plan.resource.GetName(), err)
		}
		found = append(found, one)
	}
	if err := p.printDifferences(found); err != nil {
		return err
	}
	if len(found) > 0 {
		return errDiffers
	}
	return nil
}

// difference is what is, nil for nothing, and what would be, without what the server adds to it.
type difference struct {
	name, outcome   string
	current, wanted proto.Message
}

func (p *program) differenceOf(ctx context.Context, plan plan) (difference, error) {
	d := difference{name: plan.resource.GetName(), outcome: plan.outcome}
	created := plan.outcome == outcomeCreated
	switch resource := plan.resource.(type) {
	case *namewardv1.DomainSet:
		d.wanted = canonicalSet(resource)
		if created {
			return d, nil
		}
		current, err := p.wholeDomainSet(ctx, d.name)
		d.current = canonicalSet(current)
		return d, err
	case *namewardv1.Policy:
		d.wanted = withoutOutput(resource)
		if created {
			return d, nil
		}
		current, err := p.listPolicies(ctx, []string{d.name})
		if err != nil {
			return d, err
		}
		d.current = withoutOutput(current[0])
	}
	return d, nil
}

// canonicalSet returns what an operator writes of a set, with its domains as the server has them.
func canonicalSet(set *namewardv1.DomainSet) *namewardv1.DomainSet {
	content := &namewardv1.DomainSet{Name: set.GetName(), Description: set.GetDescription()}
	for _, text := range set.GetDomains() {
		// The server has judged it: what it would refuse does not come here.
		if pattern, err := domain.ParsePattern(text); err == nil {
			text = pattern.String()
		}
		content.Domains = append(content.Domains, text)
	}
	slices.Sort(content.Domains)
	content.Domains = slices.Compact(content.Domains)
	return content
}

func (p *program) printDifferences(found []difference) error {
	if p.options.output.structured() {
		return p.printDifferenceList(found)
	}
	for _, d := range found {
		texts := [2]string{}
		for i, message := range []proto.Message{d.current, d.wanted} {
			if message == nil {
				continue
			}
			encoded, err := encode(message)
			if err != nil {
				return err
			}
			text, err := yaml.JSONToYAML(encoded)
			if err != nil {
				return fmt.Errorf("encode: %w", err)
			}
			texts[i] = string(text)
		}
		unified := diff.Diff(d.name+" (server)", []byte(texts[0]), d.name+" ("+d.outcome+")", []byte(texts[1]))
		if err := p.print(p.painter().unified(string(unified))); err != nil {
			return err
		}
	}
	return nil
}

func (p *program) printDifferenceList(found []difference) error {
	type entry struct {
		Name    string          `json:"name"`
		Outcome string          `json:"outcome"`
		Current json.RawMessage `json:"current,omitempty"`
		Wanted  json.RawMessage `json:"wanted"`
	}
	entries := []entry{}
	for _, d := range found {
		e := entry{Name: d.name, Outcome: d.outcome}
		var err error
		if d.current != nil {
			e.Current, err = encode(d.current)
		}
		wanted, wantedErr := encode(d.wanted)
		if err := errors.Join(err, wantedErr); err != nil {
			return err
		}
		e.Wanted = wanted
		entries = append(entries, e)
	}
	encoded, err := json.Marshal(map[string]any{"differences": entries})
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	return p.printDocument(encoded)
}
