package adminserver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/explain"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/controlplane/compile"
	"github.com/nameward/nameward/controlplane/ingest"
	"github.com/nameward/nameward/controlplane/policy"
	"github.com/nameward/nameward/controlplane/store"
)

// ExplainConnection evaluates a connection under the rules that a node should have.
func (s *NodeService) ExplainConnection(_ context.Context, request *namewardv1.ExplainConnectionRequest) (*namewardv1.ExplainConnectionResponse, error) {
	question, err := parseExplain(request)
	var n *store.Node
	if request.GetNode() != "" && len(request.GetLabels()) == 0 {
		var findErr error
		n, findErr = s.find("node", request.GetNode())
		if errors.Is(findErr, store.ErrNotFound) {
			findErr = &ruleset.FieldError{Field: "node", Value: request.GetNode(), Reason: "no such node has ever connected"}
		}
		err = errors.Join(findErr, err)
	}
	if err != nil {
		return nil, toStatus(s.log, err)
	}
	return explain.Answer(question, s.facts(n, request.GetLabels(), time.Now())), nil
}

// parseExplain reads what of a request does not depend on the nodes that there are.
func parseExplain(request *namewardv1.ExplainConnectionRequest) (explain.Question, error) {
	question, err := explain.Parse(request)
	return question, errors.Join(checkWhose(request.GetNode(), request.GetLabels()), err)
}

// facts returns what is known of a node, or of one that has these labels.
func (s *NodeService) facts(n *store.Node, labels map[string]string, now time.Time) explain.Facts {
	if n != nil {
		labels = n.Labels
	}
	snapshot, revision, _ := s.store.Snapshot()
	facts := explain.Facts{Rules: compile.Compile(snapshot, labels), Now: now}
	for _, p := range snapshot.Policies {
		switch {
		case p.Rules.Mode == ruleset.Disabled:
			facts.PassedOver = append(facts.PassedOver, explain.PassedOver{
				Policy: p.Rules, Outcome: namewardv1.RuleEvaluation_DISABLED, Reason: "is disabled",
			})
		case !p.Selects(labels):
			facts.PassedOver = append(facts.PassedOver, explain.PassedOver{
				Policy: p.Rules, Outcome: namewardv1.RuleEvaluation_OTHER_NODE, Reason: otherNode(p, labels),
			})
		}
	}
	if n == nil {
		return facts
	}
	facts.Mappings = nodeMappings{s.mappings, n.ID}
	facts.Always = alwaysOf(n)
	facts.Notes = statusNotes(n, facts.Rules.ID(), revision)
	if unreachable, _ := s.peers.Unreachable(); slices.Contains(unreachable, n.Status.Claim.Address) {
		facts.Notes = append(facts.Notes, fmt.Sprintf(
			"the policy server %s, to which the node is connected, cannot be reached: what is known of the node is of before", n.Status.Claim.Address))
	}
	return facts
}

// otherNode says which labels keep a policy from a node.
func otherNode(p *policy.Policy, labels map[string]string) string {
	var faults []string
	for _, key := range sortedKeys(p.Selector) {
		switch value, ok := labels[key]; {
		case !ok:
			faults = append(faults, fmt.Sprintf("%s=%s, and the node has no label %s", key, p.Selector[key], key))
		case value != p.Selector[key]:
			faults = append(faults, fmt.Sprintf("%s=%s, and the node has %s=%s", key, p.Selector[key], key, value))
		}
	}
	return "does not apply to the node: node_selector wants " + strings.Join(faults, "; ")
}

func labelsText(labels map[string]string) string {
	var pairs []string
	for _, key := range sortedKeys(labels) {
		pairs = append(pairs, key+"="+labels[key])
	}
	return strings.Join(pairs, ",")
}

func sortedKeys(labels map[string]string) []string {
	keys := make([]string, 0, len(labels))
	for key := range labels {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// statusNotes says in what the node may differ from what is computed for it.
func statusNotes(n *store.Node, wanted ruleset.ID, revision uint64) []string {
	var notes []string
	status := n.Status
	if !status.Connected {
		notes = append(notes, "the node is not connected: its mappings are those that it reported last")
	}
	switch {
	case status.RuleSetID == wanted:
	case status.LastError != "":
		notes = append(notes, fmt.Sprintf("the node could not apply what it should have, and the rules of revision %d are in force: %s", status.AppliedRevision, status.LastError))
	case status.RuleSetID.IsZero():
		notes = append(notes, "which rules the node has in force is not known: this is what it should have")
	default:
		notes = append(notes, fmt.Sprintf("the node has the rules of revision %d in force, and will have those of revision %d", status.AppliedRevision, revision))
	}
	switch {
	case len(status.Addresses) == 0 && len(n.TrustedResolvers) > 0:
		notes = append(notes, "which addresses the node has, and which policy servers, is not known until it reports: connections to them always pass")
	case status.MoreAddresses:
		notes = append(notes, fmt.Sprintf("the node has more than the %d addresses that it reports: connections to the others always pass too", len(status.Addresses)))
	}
	return notes
}

// alwaysOf returns what the node always allows, as far as it said so; nil when it did not.
func alwaysOf(n *store.Node) *explain.Always {
	if len(n.TrustedResolvers) == 0 {
		return nil
	}
	return &explain.Always{
		Resolvers: n.TrustedResolvers, Servers: n.Status.PolicyServers,
		Own: func(address netip.Addr) bool {
			return slices.ContainsFunc(n.Status.Addresses, func(p netip.Prefix) bool { return p.Contains(address) })
		},
	}
}

// nodeMappings are those of one node.
type nodeMappings struct {
	table *ingest.Table
	node  node.ID
}

// OfName returns the mappings of a name.
func (m nodeMappings) OfName(name domain.Name) []explain.Mapping {
	return toExplain(m.table.OfName(m.node, name))
}

// OfAddresses returns the mappings of addresses.
func (m nodeMappings) OfAddresses(addresses []netip.Addr) []explain.Mapping {
	return toExplain(m.table.OfAddresses(m.node, addresses))
}

func toExplain(mappings []*ingest.Mapping) []explain.Mapping {
	list := make([]explain.Mapping, 0, len(mappings))
	for _, m := range mappings {
		of := explain.Mapping{Domain: m.Domain, Chain: m.Chain, Address: m.Address, ExpiresAt: m.Expires, Message: m.Message}
		for _, alias := range m.Former {
			of.Former = append(of.Former, explain.Former{Name: alias.Name, ExpiresAt: alias.Expires})
		}
		list = append(list, of)
	}
	return list
}
