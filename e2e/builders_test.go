package e2e_test

import (
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/e2e/lab"
)

var allFields = &fieldmaskpb.FieldMask{Paths: []string{"*"}}

// clientWorkload selects the lab's client.
func clientWorkload() []*namewardv1.Workload {
	return []*namewardv1.Workload{{Cidrs: []string{lab.ClientV4.String(), lab.ClientV6.String()}}}
}

// clientPolicy lets the client reach the names that patterns select, on the service port.
func clientPolicy(patterns ...string) *namewardv1.Policy {
	return &namewardv1.Policy{
		Name:         "policies/client",
		NodeSelector: &namewardv1.NodeSelector{MatchLabels: map[string]string{"role": "lab"}},
		Workloads:    clientWorkload(),
		Rules: []*namewardv1.Rule{{
			Action:  namewardv1.Rule_ALLOW,
			Domains: patterns,
			Ports:   []*namewardv1.Port{{Protocol: namewardv1.Protocol_TCP, Port: lab.ServicePort}},
		}},
	}
}

// rogueRule lets the client ask the resolvers that the node does not trust.
func rogueRule() *namewardv1.Rule {
	return &namewardv1.Rule{
		Action: namewardv1.Rule_ALLOW, Cidrs: []string{lab.RogueV4.String(), lab.RogueV6.String()},
		Ports: []*namewardv1.Port{{Protocol: namewardv1.Protocol_UDP, Port: 53}},
	}
}
