package main

import (
	"errors"
	"strings"

	"github.com/spf13/pflag"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

// filter is the part of the command line that selects mappings and flow events.
type filter struct {
	domain, address, node  string
	workload, policy, mode string // of flow events alone
}

func (f *filter) bind(flags *pflag.FlagSet) {
	flags.StringVar(&f.domain, "domain", "", "mappings and flows: a name or pattern that a name of the address matches")
	flags.StringVar(&f.address, "address", "", "mappings and flows: an address, or addresses in CIDR form")
	flags.StringVar(&f.node, "node", "", "mappings and flows: a node")
	flags.StringVar(&f.workload, "workload", "", "flows only: source addresses (one, or in CIDR form), uid:N or host")
	flags.StringVar(&f.policy, "policy", "", "flows only: the policy whose rule decided")
	flags.StringVar(&f.mode, "mode", "", "flows only: ENFORCE for what was stopped, AUDIT for what would have been")
}

func (f *filter) set() bool { return *f != filter{} }

// fits says whether what is selected can be selected by what is given.
func (f *filter) fits(collection string) error {
	observed := collection == mappingsCollection || collection == flowsCollection
	switch {
	case f.workload+f.policy+f.mode != "" && collection != flowsCollection:
		return usagef("--workload, --policy and --mode select flows, not %s", collection)
	case f.set() && !observed:
		return usagef("--domain, --address and --node select mappings and flows, not %s", collection)
	}
	return nil
}

func (f *filter) nodeName() (string, error) {
	if f.node == "" {
		return "", nil
	}
	name, err := inCollection(nodesCollection, f.node)
	if err != nil {
		return "", usagef("--node: %w", err)
	}
	return name, nil
}

// flows returns the filter for a request, or nil when it selects everything.
func (f *filter) flows() (*namewardv1.FlowEventFilter, error) {
	if !f.set() {
		return nil, nil
	}
	node, err := f.nodeName()
	message := &namewardv1.FlowEventFilter{Domain: f.domain, Address: f.address, Node: node, Workload: f.workload}
	if f.policy != "" {
		var policyErr error
		if message.Policy, policyErr = inCollection(policiesCollection, f.policy); policyErr != nil {
			err = errors.Join(err, usagef("--policy: %w", policyErr))
		}
	}
	switch strings.ToUpper(f.mode) {
	case "":
	case "ENFORCE":
		message.Mode = namewardv1.Policy_ENFORCE
	case "AUDIT":
		message.Mode = namewardv1.Policy_AUDIT
	default:
		err = errors.Join(err, usagef("--mode: %q is neither ENFORCE nor AUDIT", f.mode))
	}
	return message, err
}
