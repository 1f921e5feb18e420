package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

// filter is the part of the command line that selects what is listed or watched.
type filter struct {
	domain, address, node, workload, policy, mode, state, domainSet string
	labels                                                          map[string]string

	resource, identity, outcome, since string
	limit                              int
}

// bind declares what selects any kind of resource.
func (f *filter) bind(flags *pflag.FlagSet) {
	flags.StringVar(&f.domain, "domain", "", "mappings and flows: a name or pattern that a name of the address matches; policies: a name that one of their patterns matches")
	flags.StringVar(&f.address, "address", "", "mappings and flows: an address, or addresses in CIDR form")
	flags.StringVar(&f.node, "node", "", "mappings and flows: a node; policies: a node that they apply to")
	flags.StringVar(&f.workload, "workload", "", "flows: source addresses (one, or in CIDR form), uid:N or host")
	flags.StringVar(&f.mode, "mode", "", "flows: ENFORCE for what was stopped, AUDIT for what would have been; policies: their mode")
	flags.StringVar(&f.domainSet, "domain-set", "", "policies: a domain set that they name")
	f.bindNodes(flags)
}

// bindAudit declares what selects audit events.
func (f *filter) bindAudit(flags *pflag.FlagSet) {
	flags.StringVar(&f.resource, "resource", "", "audit: a resource, policies/web-egress, or a kind of them, policies")
	flags.StringVar(&f.identity, "identity", "", "audit: who called, spiffe://DOMAIN/PATH")
	flags.StringVar(&f.outcome, "outcome", "", "audit: committed, not-committed or denied")
	flags.StringVar(&f.since, "since", "", "audit: how long ago at most, 24h, or from which time on, 2026-11-02T10:00:00Z")
	flags.IntVar(&f.limit, "limit", defaultAuditLimit, "audit: so many of the latest events; 0 for all")
}

// defaultAuditLimit is how much of an audit log somebody wants to see who does not say how much.
const defaultAuditLimit = 1000

// bindNodes declares what selects nodes.
func (f *filter) bindNodes(flags *pflag.FlagSet) {
	flags.StringVar(&f.policy, "policy", "", "flows: the policy whose rule decided; mappings: a policy with a pattern for the name; nodes: a policy that applies to them")
	flags.StringToStringVar(&f.labels, "label", nil, "nodes: labels that they have, key=value (repeatable)")
	flags.StringVar(&f.state, "state", "", "nodes: current, behind, degraded, failed or disconnected")
}

// fits says whether what is selected by can select what is given.
func (f *filter) fits(collection string) error {
	observed := []string{mappingsCollection, flowsCollection}
	var errs []error
	for _, flag := range []struct {
		name string
		set  bool
		of   []string
	}{
		{"domain", f.domain != "", append(observed, policiesCollection)},
		{"address", f.address != "", observed},
		{"node", f.node != "", append(observed, policiesCollection)},
		{"workload", f.workload != "", []string{flowsCollection}},
		{"policy", f.policy != "", append(observed, nodesCollection)},
		{"mode", f.mode != "", []string{flowsCollection, policiesCollection}},
		{"domain-set", f.domainSet != "", []string{policiesCollection}},
		{"label", len(f.labels) > 0, []string{nodesCollection}},
		{"state", f.state != "", []string{nodesCollection}},
		{"resource", f.resource != "", []string{auditCollection}},
		{"identity", f.identity != "", []string{auditCollection}},
		{"outcome", f.outcome != "", []string{auditCollection}},
		{"since", f.since != "", []string{auditCollection}},
	} {
		if flag.set && !slices.Contains(flag.of, collection) {
			var kinds []string
			for _, of := range flag.of {
				kinds = append(kinds, plural(of))
			}
			errs = append(errs, usagef("--%s: selects %s, not %s", flag.name, strings.Join(kinds, " and "), plural(collection)))
		}
	}
	return errors.Join(errs...)
}

// set reports whether anything is selected.
func (f *filter) set() bool {
	return f.domain+f.address+f.node+f.workload+f.policy+f.mode+f.state+f.domainSet != "" || f.resource+f.identity+f.outcome+f.since != "" || len(f.labels) > 0
}

// named returns the resource name that a flag has, "" when it is not set.
func named(flag, collection, value string) (string, error) {
	if value == "" {
		return "", nil
	}
	name, err := inCollection(collection, value)
	if err != nil {
		return "", usagef("--%s: %w", flag, err)
	}
	return name, nil
}

// flows returns the filter for a request, or nil when it selects everything.
func (f *filter) flows() (*namewardv1.FlowEventFilter, error) {
	if !f.set() {
		return nil, nil
	}
	node, nodeErr := named("node", nodesCollection, f.node)
	policy, policyErr := named("policy", policiesCollection, f.policy)
	mode, modeErr := f.policyMode()
	if modeErr == nil && mode == namewardv1.Policy_DISABLED {
		modeErr = usagef("--mode: %q is neither ENFORCE nor AUDIT", f.mode)
	}
	return &namewardv1.FlowEventFilter{
		Domain: f.domain, Address: f.address, Node: node, Workload: f.workload, Policy: policy, Mode: mode,
	}, errors.Join(nodeErr, policyErr, modeErr)
}

func (f *filter) policyMode() (namewardv1.Policy_Mode, error) {
	if f.mode == "" {
		return namewardv1.Policy_MODE_UNSPECIFIED, nil
	}
	number, known := namewardv1.Policy_Mode_value[strings.ToUpper(f.mode)]
	if !known || number == 0 {
		return 0, usagef("--mode: %q is none of ENFORCE, AUDIT and DISABLED", f.mode)
	}
	return namewardv1.Policy_Mode(number), nil
}

// mappings returns the filter for a request, or nil when it selects everything.
func (f *filter) mappings() (*namewardv1.MappingFilter, error) {
	if !f.set() {
		return nil, nil
	}
	node, nodeErr := named("node", nodesCollection, f.node)
	policy, policyErr := named("policy", policiesCollection, f.policy)
	return &namewardv1.MappingFilter{Domain: f.domain, Address: f.address, Node: node, Policy: policy}, errors.Join(nodeErr, policyErr)
}

// nodes returns the filter for a request, or nil when it selects everything.
func (f *filter) nodes() (*namewardv1.NodeFilter, error) {
	if !f.set() {
		return nil, nil
	}
	policy, err := named("policy", policiesCollection, f.policy)
	message := &namewardv1.NodeFilter{MatchLabels: f.labels, Policy: policy}
	if f.state != "" {
		number, known := namewardv1.NodeStatus_State_value[strings.ToUpper(f.state)]
		if !known || number == 0 {
			err = errors.Join(err, usagef("--state: %q is none of current, behind, degraded, failed and disconnected", f.state))
		}
		message.State = namewardv1.NodeStatus_State(number)
	}
	return message, err
}

// policies returns the filter for a request, or nil when it selects everything.
func (f *filter) policies() (*namewardv1.PolicyFilter, error) {
	if !f.set() {
		return nil, nil
	}
	node, nodeErr := named("node", nodesCollection, f.node)
	set, setErr := named("domain-set", domainSetsCollection, f.domainSet)
	mode, modeErr := f.policyMode()
	return &namewardv1.PolicyFilter{DomainSet: set, Node: node, Domain: f.domain, Mode: mode}, errors.Join(nodeErr, setErr, modeErr)
}

// instead refuses a filter beside names: each selects on its own.
func (f *filter) instead(names []string) error {
	if len(names) > 0 && f.set() {
		return usageError{fmt.Errorf("names and flags that select: give one of them")}
	}
	return nil
}
