package localserver

import (
	"context"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

// GetRuleSet reads the rule set in force.
func (s *Server) GetRuleSet(_ context.Context, request *namewardv1.GetRuleSetRequest) (*namewardv1.GetRuleSetResponse, error) {
	if err := s.otherNode(request); err != nil {
		return nil, invalid(err)
	}
	rules := s.agent.Rules()
	if rules == nil {
		return nil, withDetails(codes.FailedPrecondition, "the agent has no rule set yet", &errdetails.ErrorInfo{Reason: noRuleSet, Domain: errorDomain})
	}
	response, node := rules.Message(), s.agent.Status().GetNode().GetStatus()
	response.InForce, response.AppliedRuleSetId = true, response.GetRuleSetId()
	response.Revision, response.AppliedRevision = node.GetAppliedRevision(), node.GetAppliedRevision()
	response.LastError = node.GetLastError()
	return response, nil
}
