package adminserver

import (
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/controlplane/policy"
	"github.com/nameward/nameward/controlplane/store"
)

// nodeFilter returns what selects nodes; nil for all. An error is a *ruleset.FieldError.
func nodeFilter(s *store.Store, message *namewardv1.NodeFilter) (func(*store.Node) bool, error) {
	var tests []func(*store.Node) bool
	if labels := message.GetMatchLabels(); len(labels) > 0 {
		selector := &policy.Policy{Selector: labels}
		tests = append(tests, func(n *store.Node) bool { return selector.Selects(n.Labels) })
	}
	if state := message.GetState(); state != namewardv1.NodeStatus_STATE_UNSPECIFIED {
		tests = append(tests, func(n *store.Node) bool { return n.State() == state })
	}
	if name := message.GetPolicy(); name != "" {
		p, err := policyOf(s, "filter.policy", name)
		if err != nil {
			return nil, err
		}
		tests = append(tests, func(n *store.Node) bool { return p.Rules.Mode != ruleset.Disabled && p.Selects(n.Labels) })
	}
	return all(tests), nil
}
