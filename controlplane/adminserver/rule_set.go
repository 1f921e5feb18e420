package adminserver

import (
	"context"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/controlplane/compile"
	"github.com/nameward/nameward/controlplane/store"
)

// GetRuleSet reads the rule set that a node should have.
func (s *NodeService) GetRuleSet(_ context.Context, request *namewardv1.GetRuleSetRequest) (*namewardv1.GetRuleSetResponse, error) {
	n, err := s.whose(request)
	if err != nil {
		return nil, toStatus(s.log, err)
	}
	labels := request.GetLabels()
	if n != nil {
		labels = n.Labels
	}
	snapshot, revision, _ := s.store.Snapshot()
	rules := compile.Compile(snapshot, labels)
	response := rules.Message()
	response.Revision = revision
	if n == nil {
		return response, nil
	}
	response.InForce = n.Status.RuleSetID == rules.ID()
	if !n.Status.RuleSetID.IsZero() {
		response.AppliedRuleSetId = n.Status.RuleSetID.String()
	}
	response.AppliedRevision, response.LastError = n.Status.AppliedRevision, n.Status.LastError
	return response, nil
}

// whose returns the node that a request names; nil when it has labels instead.
func (s *NodeService) whose(request *namewardv1.GetRuleSetRequest) (*store.Node, error) {
	if err := checkWhose(request.GetNode(), request.GetLabels()); err != nil {
		return nil, err
	}
	if request.GetNode() == "" {
		return nil, nil
	}
	return s.find("node", request.GetNode())
}

// checkWhose returns a *ruleset.FieldError unless exactly one of node and labels is set.
func checkWhose(node string, labels map[string]string) error {
	switch {
	case node != "" && len(labels) > 0:
		return &ruleset.FieldError{
			Field: "labels", Value: labelsText(labels), Reason: "a node has its own labels: set one of `node` and `labels`",
		}
	case node == "" && len(labels) == 0:
		return &ruleset.FieldError{Field: "node", Reason: "whose rules? Set one of `node` and `labels`"}
	}
	return nil
}
