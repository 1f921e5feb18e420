package localserver

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/explain"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/dataplane/observe"
)

// Addresses are those that the node always allows connections to.
type Addresses interface {
	Resolvers() []netip.AddrPort
	// Servers are open to the node itself.
	Servers() []netip.AddrPort
	// Own reports whether an address is one of the node's.
	Own(address netip.Addr) (bool, error)
}

// ExplainConnection evaluates a connection under the rule set in force, with the mappings of the node.
func (s *Server) ExplainConnection(_ context.Context, request *namewardv1.ExplainConnectionRequest) (*namewardv1.ExplainConnectionResponse, error) {
	s.agent.TakeIn()
	question, err := explain.Parse(request)
	if err := errors.Join(s.otherNode(request), err); err != nil {
		return nil, invalid(err)
	}
	rules := s.agent.Rules()
	var notes []string
	if rules == nil {
		rules = &ruleset.RuleSet{}
		notes = append(notes, "the agent has no rule set yet")
	}
	var lookUpErr error
	answer := explain.Answer(question, explain.Facts{
		Rules: rules, Mappings: nodeMappings{s.table, s.node}, Notes: notes, Now: time.Now(),
		Always: &explain.Always{
			Resolvers: s.addresses.Resolvers(), Servers: s.addresses.Servers(),
			Own: func(address netip.Addr) bool {
				own, err := s.addresses.Own(address)
				lookUpErr = errors.Join(lookUpErr, err)
				return own
			},
		},
	})
	return answer, lookUpErr
}

// about is a request that may say which node it is about.
type about interface {
	GetNode() string
	GetLabels() map[string]string
}

// otherNode returns the faults of a request that is not about this node.
func (s *Server) otherNode(request about) error {
	var errs []error
	if text := request.GetNode(); text != "" {
		if id, err := node.ParseResourceName(text); err != nil || id != s.node {
			errs = append(errs, fieldError("node", text, "is not this node: the agent answers for "+s.node.ResourceName()+" alone"))
		}
	}
	if len(request.GetLabels()) > 0 {
		errs = append(errs, fieldError("labels", labelsText(request.GetLabels()), "stand for a node that need not exist: only the policy server knows what it would have"))
	}
	return errors.Join(errs...)
}

func labelsText(labels map[string]string) string {
	var pairs []string
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		pairs = append(pairs, key+"="+labels[key])
	}
	return strings.Join(pairs, ",")
}

// nodeMappings are those of the node.
type nodeMappings struct {
	table *observe.Table
	node  node.ID
}

// OfName returns the mappings of a name.
func (m nodeMappings) OfName(name domain.Name) []explain.Mapping {
	return m.find(func(mapping *observe.Mapping) bool {
		return mapping.Owns(name) || slices.ContainsFunc(mapping.Former, func(a observe.FormerAlias) bool { return a.Name == name })
	})
}

// OfAddresses returns the mappings of addresses.
func (m nodeMappings) OfAddresses(addresses []netip.Addr) []explain.Mapping {
	wanted := make(map[netip.Addr]bool, len(addresses))
	for _, address := range addresses {
		wanted[address] = true
	}
	return m.find(func(mapping *observe.Mapping) bool { return wanted[mapping.Address] })
}

func (m nodeMappings) find(keep func(*observe.Mapping) bool) []explain.Mapping {
	found := m.table.Find(keep)
	list := make([]explain.Mapping, 0, len(found))
	for i := range found {
		f := &found[i]
		of := explain.Mapping{
			Domain: f.Domain, Chain: f.Chain, Address: f.Address, ExpiresAt: f.ExpiresAt,
			Message: func() *namewardv1.Mapping { return f.ToProto(m.node, time.Now()) },
		}
		for _, alias := range f.Former {
			of.Former = append(of.Former, explain.Former{Name: alias.Name, ExpiresAt: alias.ExpiresAt})
		}
		list = append(list, of)
	}
	return list
}
