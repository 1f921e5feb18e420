package localserver

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nameward/nameward/api/domain"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/dataplane/observe"
)

// ExplainConnection evaluates a connection under the rule set in force, with the live mappings.
func (s *Server) ExplainConnection(_ context.Context, request *namewardv1.ExplainConnectionRequest) (*namewardv1.ExplainConnectionResponse, error) {
	connection, err := s.parseConnection(request)
	if err != nil {
		return nil, invalid(err)
	}
	now := time.Now()
	mappings := s.judgeBy(&connection, now)
	rules := s.agent.Rules()
	if rules == nil {
		rules = &ruleset.RuleSet{}
	}
	response := toProto(rules.Explain(connection))
	for i := range mappings {
		response.Mappings = append(response.Mappings, mappings[i].ToProto(s.node))
	}
	return response, nil
}

func (s *Server) parseConnection(request *namewardv1.ExplainConnectionRequest) (ruleset.Connection, error) {
	var errs []error
	fault := func(field, value, reason string) { errs = append(errs, fieldError(field, value, reason)) }
	if text := request.GetNode(); text != "" {
		if id, err := node.ParseResourceName(text); err != nil || id != s.node {
			fault("node", text, "is not this node: the agent answers for "+s.node.ResourceName()+" alone")
		}
	}
	if len(request.GetLabels()) > 0 {
		fault("labels", "", "stand for a node that need not exist: only the policy server knows what it would have")
	}
	c := ruleset.Connection{Interface: request.GetInterface()}
	var err error
	if err = c.ParseSource(request.GetWorkload()); err != nil {
		fault("workload", request.GetWorkload(), err.Error())
	}
	if c.Protocol, err = ruleset.ParseProtocol(request.GetProtocol()); err != nil {
		errs = append(errs, err)
	}
	if request.GetPort() > 65535 {
		fault("port", strconv.FormatUint(uint64(request.GetPort()), 10), "is more than 65535")
	}
	c.Port = uint16(request.GetPort()) //nolint:gosec // checked above
	if address, err := netip.ParseAddr(request.GetDestination()); err == nil {
		c.Destination = address.Unmap().WithZone("")
	} else if name, err := domain.ParseName(request.GetDestination()); err == nil {
		c.Names = []domain.Name{name}
	} else {
		fault("destination", request.GetDestination(), "is neither an address nor a domain name")
	}
	return c, errors.Join(errs...)
}

// judgeBy adds the names of the destination's live mappings and returns those; of a name that is judged,
// the mappings that it has.
func (s *Server) judgeBy(c *ruleset.Connection, now time.Time) []observe.Mapping {
	if !c.Destination.IsValid() {
		name := c.Names[0]
		return s.table.Live(now, func(m *observe.Mapping) bool { return m.Owns(name) })
	}
	// Owners knows aliases of earlier answers too, which the kernel still honours.
	for owner := range s.table.Owners(now, nil) {
		if owner.Address == c.Destination && !slices.Contains(c.Names, owner.Name) {
			c.Names = append(c.Names, owner.Name)
		}
	}
	slices.SortFunc(c.Names, func(a, b domain.Name) int { return strings.Compare(a.String(), b.String()) })
	return s.table.Live(now, func(m *observe.Mapping) bool { return m.Address == c.Destination })
}

func toProto(e ruleset.Explanation) *namewardv1.ExplainConnectionResponse {
	response := &namewardv1.ExplainConnectionResponse{
		Verdict: verdict(e.Verdict), Enforced: e.Enforced, Policy: e.Policy, Reason: e.Reason,
	}
	if e.Policy != "" {
		response.Rule = int32(e.Rule) //nolint:gosec // at most 10,000 rules a policy
	}
	if e.Audited {
		response.AuditVerdict = verdict(e.AuditVerdict)
	}
	for _, evaluation := range e.Evaluations {
		message := &namewardv1.RuleEvaluation{
			Policy: evaluation.Policy, Rule: int32(evaluation.Rule), Matched: evaluation.Matched, //nolint:gosec // as above
			Reason: evaluation.Reason, Mode: evaluation.Mode.ToProto(),
		}
		if evaluation.Rule >= 0 {
			message.Action = evaluation.Action.ToProto()
		}
		response.Evaluations = append(response.Evaluations, message)
	}
	return response
}

func verdict(action ruleset.Action) namewardv1.Verdict {
	if action == ruleset.Deny {
		return namewardv1.Verdict_DENY
	}
	return namewardv1.Verdict_ALLOW
}
