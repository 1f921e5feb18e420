package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

// What apply does, or would do, to a policy.
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
		Short: "Create or change policies from YAML or JSON",
		Long: `apply makes the policies on the server equal to the documents of the files. A file holds any
number of documents, YAML separated by "---" or JSON one after another; "-" is standard input.

Every document is checked, by the server too, before the first is written. A document with an
etag is written only while the policy on the server has that etag.`,
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
	a := &applier{client: namewardv1.NewPolicyServiceClient(connection)}
	// What could be read is checked in any case: the operator shall mend all of the files at once.
	plans, err := a.plan(ctx, manifests)
	if err := errors.Join(unread, err); err != nil {
		return errors.Join(err, errNothingApplied)
	}
	for i, plan := range plans {
		note := " (dry run)"
		if !dryRun {
			note = ""
			if err := a.write(ctx, plan); err != nil {
				return fmt.Errorf("%s (%d of %d policies were applied): %w", plan.policy.GetName(), i, len(plans), err)
			}
		}
		if err := p.print(plan.policy.GetName() + " " + plan.outcome + note + "\n"); err != nil {
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
	policy  *namewardv1.Policy
	outcome string
}

// applier brings policies on the server to what manifests ask for.
type applier struct {
	client namewardv1.PolicyServiceClient
}

// plan lets the server check each manifest. The faults of all documents come at once, a stale etag among
// them; a server that fails ends it at that call.
func (a *applier) plan(ctx context.Context, manifests []manifest) ([]plan, error) {
	var (
		plans []plan
		errs  []error
	)
	for _, manifest := range manifests {
		planned, err := a.planOne(ctx, manifest.policy)
		switch {
		case isInvalid(err):
			errs = append(errs, &faults{place: manifest.document.place(), name: manifest.policy.GetName(), errs: fieldFaults(err)})
		case err != nil:
			err = fmt.Errorf("%s: %s: %w", manifest.document.place(), manifest.policy.GetName(), err)
			if errs = append(errs, err); !isStale(err) {
				return nil, errors.Join(errs...)
			}
		}
		plans = append(plans, planned)
	}
	return plans, errors.Join(errs...)
}

func (a *applier) planOne(ctx context.Context, policy *namewardv1.Policy) (plan, error) {
	current, err := a.client.GetPolicy(ctx, &namewardv1.GetPolicyRequest{Name: policy.GetName()})
	missing := isNotFound(err)
	if err != nil && !missing {
		return plan{}, err
	}
	wanted, err := a.client.UpdatePolicy(ctx, updateRequest(policy, true))
	switch {
	case err != nil:
		return plan{}, err
	case missing:
		return plan{policy, outcomeCreated}, nil
	case sameContent(current, wanted):
		return plan{policy, outcomeUnchanged}, nil
	}
	return plan{policy, outcomeConfigured}, nil
}

func (a *applier) write(ctx context.Context, plan plan) error {
	if plan.outcome == outcomeUnchanged {
		return nil
	}
	_, err := a.client.UpdatePolicy(ctx, updateRequest(plan.policy, false))
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

// fieldFaults returns the violations of a request with the paths that the document has for the fields.
func fieldFaults(err error) []error {
	var errs []error
	for _, violation := range violations(err) {
		path := camelPath(strings.TrimPrefix(violation.GetField(), "policy."))
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
