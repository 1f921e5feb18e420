package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

// What apply does, or would do, to a resource.
const (
	outcomeCreated    = "created"
	outcomeConfigured = "configured"
	outcomeUnchanged  = "unchanged"
)

// errNothingApplied ends a run in which a document has a fault.
var errNothingApplied = errors.New("nothing was applied")

func (p *program) applyCommand() *cobra.Command {
	var (
		paths  []string
		dryRun bool
	)
	command := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Create or change policies and domain sets from YAML or JSON",
		Long: `apply makes the policies and domain sets on the server equal to the documents of the files. A
file holds any number of documents, YAML separated by "---" or JSON one after another; "-" is
standard input. Domain sets are written before policies, which may name them.

Every document is checked, by the server too, before the first is written. A document with an
etag is written only while the resource on the server has that etag.`,
		Example: `  namewardctl apply -f examples/web-egress.yaml
  namewardctl describe policies/web-egress -o yaml | namewardctl apply -f -`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if len(paths) == 0 {
				return usagef("--filename: must be set; - is standard input")
			}
			return p.apply(command.Context(), paths, dryRun)
		},
	}
	command.Flags().StringArrayVarP(&paths, "filename", "f", nil, "file to apply, - for standard input (repeatable)")
	command.Flags().BoolVar(&dryRun, "dry-run", false, "check and say what would be done, but write nothing")
	return command
}

func (p *program) apply(ctx context.Context, paths []string, dryRun bool) error {
	connection, err := p.dialServer()
	if err != nil {
		return err
	}
	defer connection.Close()
	manifests, unread := p.readManifests(paths)
	a := p.newApplier(connection)
	// What could be read is checked in any case: the operator shall mend all of the files at once.
	plans, err := a.plan(ctx, manifests)
	if err := errors.Join(unread, err); err != nil {
		return errors.Join(err, errNothingApplied)
	}
	// A policy may name a set of the same run.
	slices.SortStableFunc(plans, func(a, b plan) int { return cmp.Compare(a.rank(), b.rank()) })
	for i, plan := range plans {
		note := " (dry run)"
		if !dryRun {
			note = ""
			if err := a.write(ctx, plan); err != nil {
				return fmt.Errorf("%s (%d of %d documents were applied): %w", plan.resource.GetName(), i, len(plans), err)
			}
		}
		if err := p.print(plan.resource.GetName() + " " + plan.outcome + note + "\n"); err != nil {
			return err
		}
	}
	return nil
}

func (p *program) readManifests(paths []string) ([]manifest, error) {
	var (
		documents []document
		errs      []error
	)
	for _, path := range paths {
		source, data, err := p.readSource(path)
		if err != nil {
			errs = append(errs, fmt.Errorf("read documents: %w", err))
			continue
		}
		found, err := splitDocuments(source, data)
		if err == nil && len(found) == 0 {
			err = fmt.Errorf("%s: there is no document in it", source)
		}
		documents, errs = append(documents, found...), append(errs, err)
	}
	manifests, err := parseManifests(documents)
	return manifests, errors.Join(append(errs, err)...)
}

// plan is what to do about one manifest.
type plan struct {
	resource resource
	outcome  string
}

func (p plan) rank() int {
	if _, ok := p.resource.(*namewardv1.DomainSet); ok {
		return 0
	}
	return 1
}

// applier brings policies and domain sets on the server to what manifests ask for.
type applier struct {
	policies namewardv1.PolicyServiceClient
	sets     namewardv1.DomainSetServiceClient
	// progress tells how far the writing of many domains is.
	progress func(total int) *progress
}

func (p *program) newApplier(connection *grpc.ClientConn) *applier {
	return &applier{
		namewardv1.NewPolicyServiceClient(connection), namewardv1.NewDomainSetServiceClient(connection),
		func(total int) *progress { return p.newProgress("domains", total) },
	}
}

// plan lets the server check each manifest. The faults of all documents come at once, a stale etag among
// them; a server that fails ends it at that call.
func (a *applier) plan(ctx context.Context, manifests []manifest) ([]plan, error) {
	var (
		plans []plan
		errs  []error
	)
	for _, manifest := range manifests {
		outcome, err := a.planOne(ctx, manifest.resource, manifests)
		switch {
		case isInvalid(err) || isUnmet(err):
			errs = append(errs, &faults{place: manifest.document.place(), name: manifest.resource.GetName(), errs: fieldFaults(err, manifests)})
		case err != nil:
			err = fmt.Errorf("%s: %s: %w", manifest.document.place(), manifest.resource.GetName(), err)
			if errs = append(errs, err); !isStale(err) {
				return nil, errors.Join(errs...)
			}
		}
		plans = append(plans, plan{manifest.resource, outcome})
	}
	return plans, errors.Join(errs...)
}

func (a *applier) planOne(ctx context.Context, resource resource, manifests []manifest) (outcome string, err error) {
	if set, ok := resource.(*namewardv1.DomainSet); ok {
		return a.planDomainSet(ctx, set)
	}
	policy, _ := resource.(*namewardv1.Policy)
	return a.planPolicy(ctx, policy, manifests)
}

func (a *applier) planPolicy(ctx context.Context, policy *namewardv1.Policy, manifests []manifest) (outcome string, err error) {
	current, err := a.policies.GetPolicy(ctx, &namewardv1.GetPolicyRequest{Name: policy.GetName()})
	missing := isNotFound(err)
	if err != nil && !missing {
		return "", err
	}
	wanted, err := a.policies.UpdatePolicy(ctx, updateRequest(policy, true))
	// What it lacks is written before it. Nothing else is the matter, or the server had said so.
	awaited := isUnmet(err) && allAreIn(missingOf(err), manifests)
	switch {
	case err != nil && !awaited:
		return "", err
	case missing:
		return outcomeCreated, nil
	case !awaited && sameContent(current, wanted):
		return outcomeUnchanged, nil
	}
	return outcomeConfigured, nil
}

// allAreIn reports whether there is a document for each of the names.
func allAreIn(names []string, manifests []manifest) bool {
	for _, name := range names {
		if !slices.ContainsFunc(manifests, func(m manifest) bool { return m.resource.GetName() == name }) {
			return false
		}
	}
	return len(names) > 0
}

func (a *applier) write(ctx context.Context, plan plan) error {
	if plan.outcome == outcomeUnchanged {
		return nil
	}
	if set, ok := plan.resource.(*namewardv1.DomainSet); ok {
		return a.writeDomainSet(ctx, set)
	}
	policy, _ := plan.resource.(*namewardv1.Policy)
	_, err := a.policies.UpdatePolicy(ctx, updateRequest(policy, false))
	return err
}

// updateRequest asks for the whole policy: a field that the document does not set is cleared.
func updateRequest(policy *namewardv1.Policy, validateOnly bool) *namewardv1.UpdatePolicyRequest {
	return &namewardv1.UpdatePolicyRequest{
		Policy:       policy,
		UpdateMask:   &fieldmaskpb.FieldMask{Paths: []string{"*"}},
		AllowMissing: true,
		ValidateOnly: validateOnly,
	}
}

// sameContent compares what an operator writes, not what the server adds to it.
func sameContent(a, b *namewardv1.Policy) bool {
	return proto.Equal(withoutOutput(a), withoutOutput(b))
}

func withoutOutput(policy *namewardv1.Policy) *namewardv1.Policy {
	content := proto.CloneOf(policy)
	content.Etag, content.CreateTime, content.UpdateTime = "", nil, nil
	return content
}

// fieldFaults returns the violations of a request with the paths that the document has for the fields. That a
// domain set of the same run does not exist is none.
func fieldFaults(err error, manifests []manifest) []error {
	var errs []error
	for _, violation := range violations(err) {
		if isUnmet(err) && slices.ContainsFunc(manifests, func(m manifest) bool {
			return strings.HasPrefix(violation.GetDescription(), strconv.Quote(m.resource.GetName())+":")
		}) {
			continue
		}
		path := camelPath(strings.TrimPrefix(strings.TrimPrefix(violation.GetField(), "policy."), "domain_set."))
		errs = append(errs, errors.New(path+": "+violation.GetDescription()))
	}
	if len(errs) == 0 {
		return []error{errors.New(answerText(err))}
	}
	return errs
}

// camelPath turns node_selector.match_labels["my_key"] into nodeSelector.matchLabels["my_key"].
func camelPath(path string) string {
	var (
		out            strings.Builder
		quoted, raised bool
	)
	for _, r := range path {
		switch {
		case r == '"':
			quoted = !quoted
		case r == '_' && !quoted:
			raised = true
			continue
		case raised:
			r = []rune(strings.ToUpper(string(r)))[0]
		}
		raised = false
		out.WriteRune(r)
	}
	return out.String()
}
