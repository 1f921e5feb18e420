package adminserver

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/nameward/nameward/api/domain"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/controlplane/compile"
	"github.com/nameward/nameward/controlplane/ingest"
	"github.com/nameward/nameward/controlplane/store"
)

// parseConnection reads the connection of a request. Its names are empty for a destination that is an
// address, its destination is the zero Addr for one that is a name. An error joins a *ruleset.FieldError
// for every fault.
func parseConnection(request *namewardv1.ExplainConnectionRequest) (ruleset.Connection, error) {
	c := ruleset.Connection{Interface: request.GetInterface()}
	var faults []error
	fault := func(field, value, reason string) {
		faults = append(faults, &ruleset.FieldError{Field: field, Value: value, Reason: reason})
	}
	var err error
	if err = c.ParseSource(request.GetWorkload()); err != nil {
		fault("workload", request.GetWorkload(), err.Error())
	}
	if c.Local && c.Interface != "" {
		fault("interface", c.Interface, "the node's own processes have no incoming interface")
	}
	destination := request.GetDestination()
	if address, err := netip.ParseAddr(destination); err == nil {
		c.Destination = address.Unmap().WithZone("")
	} else if name, err := domain.ParseName(destination); err == nil {
		c.Names = []domain.Name{name}
	} else {
		fault("destination", destination, "is neither an address nor a domain name: "+err.Error())
	}
	if c.Protocol, err = ruleset.ParseProtocol(request.GetProtocol()); err != nil {
		faults = append(faults, err)
	}
	if port := request.GetPort(); port <= 65535 {
		c.Port = uint16(port)
	}
	if c.Port != 0 && !c.Protocol.HasPorts() {
		fault("port", fmt.Sprint(c.Port), "the protocol has no ports")
	}
	if request.GetNode() != "" && len(request.GetLabels()) > 0 {
		fault("labels", fmt.Sprint(request.GetLabels()), "a node has its own labels: set one of `node` and `labels`")
	}
	return c, errors.Join(faults...)
}

// explain judges a connection, also by the names and aliases of the mappings that lead to it.
func explain(policies *store.Store, labels map[string]string, c ruleset.Connection, mappings []*ingest.Mapping) *namewardv1.ExplainConnectionResponse {
	response := &namewardv1.ExplainConnectionResponse{}
	for _, m := range mappings {
		response.Mappings = append(response.Mappings, m.Message())
		for _, name := range append([]domain.Name{m.Domain}, m.Chain...) {
			if !slices.Contains(c.Names, name) {
				c.Names = append(c.Names, name)
			}
		}
	}
	snapshot, _, _ := policies.Snapshot()
	e := compile.Compile(snapshot, labels).Explain(c)
	response.Verdict, response.Enforced, response.Reason = toVerdict(e.Verdict), e.Enforced, e.Reason
	if e.Policy != "" {
		response.Policy, response.Rule = e.Policy, int32(e.Rule) //nolint:gosec // a policy has at most 10,000 rules
	}
	if e.Audited {
		response.AuditVerdict = toVerdict(e.AuditVerdict)
	}
	for _, evaluation := range e.Evaluations {
		message := &namewardv1.RuleEvaluation{
			Policy: evaluation.Policy, Rule: int32(evaluation.Rule), //nolint:gosec // as above
			Matched: evaluation.Matched, Reason: evaluation.Reason, Mode: evaluation.Mode.ToProto(),
		}
		if evaluation.Rule >= 0 {
			message.Action = evaluation.Action.ToProto()
		}
		response.Evaluations = append(response.Evaluations, message)
	}
	return response
}

func toVerdict(action ruleset.Action) namewardv1.Verdict {
	if action == ruleset.Deny {
		return namewardv1.Verdict_DENY
	}
	return namewardv1.Verdict_ALLOW
}
