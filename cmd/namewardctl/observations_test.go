package main

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/explain"
	"github.com/nameward/nameward/api/flow"
	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	nodes "github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/api/ruleset"
)

// listMappings is what server and agent share of ListMappings.
func (f *fleet) listMappings(request *namewardv1.ListMappingsRequest, node string) *namewardv1.ListMappingsResponse {
	f.mu.Lock()
	defer f.mu.Unlock()
	var selected []*namewardv1.Mapping
	for _, mapping := range f.mappings {
		if selects(request.GetFilter(), mapping) && (node == "" || node == mapping.GetNode()) {
			selected = append(selected, mapping)
		}
	}
	mappings, next := page(f, selected, request.GetPageSize(), request.GetPageToken())
	return &namewardv1.ListMappingsResponse{Mappings: mappings, NextPageToken: next}
}

// listFlows is what server and agent share of ListFlowEvents.
func (f *fleet) listFlows(request *namewardv1.ListFlowEventsRequest, node string) (*namewardv1.ListFlowEventsResponse, error) {
	filter, err := flow.ParseFilter("filter", request.GetFilter())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var selected []*namewardv1.FlowEvent
	for _, message := range f.flows {
		event, err := flow.FromProto(message)
		if err != nil {
			return nil, err
		}
		id, err := nodes.ParseResourceName(message.GetNode())
		if err != nil {
			return nil, err
		}
		if filter.Match(id, event) && (node == "" || node == message.GetNode()) {
			selected = append(selected, message)
		}
	}
	flows, next := page(f, selected, request.GetPageSize(), request.GetPageToken())
	return &namewardv1.ListFlowEventsResponse{FlowEvents: flows, NextPageToken: next}, nil
}

// explain answers as server and agent do, of the policies and mappings of the fleet.
func (f *fleet) explain(request *namewardv1.ExplainConnectionRequest) (*namewardv1.ExplainConnectionResponse, error) {
	question, err := explain.Parse(request)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	facts := explain.Facts{Now: f.moment, Always: &explain.Always{}}
	var policies []ruleset.Policy
	for _, message := range f.policies {
		policy, err := ruleset.ParsePolicy(message)
		if err != nil {
			return nil, err
		}
		policies = append(policies, policy)
		if policy.Mode == ruleset.Disabled {
			facts.PassedOver = append(facts.PassedOver, explain.PassedOver{Policy: policy, Outcome: namewardv1.RuleEvaluation_DISABLED, Reason: "is disabled"})
		}
	}
	facts.Rules = ruleset.New(policies)
	if request.GetNode() != "" || len(request.GetLabels()) == 0 {
		facts.Mappings = fleetMappings(f.mappings)
	}
	return explain.Answer(question, facts), nil
}

// fleetMappings are those of every node.
type fleetMappings []*namewardv1.Mapping

func (m fleetMappings) OfName(name domain.Name) []explain.Mapping {
	return slices.DeleteFunc(m.all(), func(m explain.Mapping) bool { return m.Domain != name && !slices.Contains(m.Chain, name) })
}

func (m fleetMappings) OfAddresses(addresses []netip.Addr) []explain.Mapping {
	return slices.DeleteFunc(m.all(), func(m explain.Mapping) bool { return !slices.Contains(addresses, m.Address) })
}

func (m fleetMappings) all() []explain.Mapping {
	var all []explain.Mapping
	for _, message := range m {
		name, _ := domain.ParseCanonical(message.GetDomain())
		of := explain.Mapping{
			Domain: name, Address: netip.MustParseAddr(message.GetAddress()), ExpiresAt: message.GetExpireTime().AsTime(),
			Message: func() *namewardv1.Mapping { return message },
		}
		for _, alias := range message.GetChain() {
			name, _ := domain.ParseCanonical(alias)
			of.Chain = append(of.Chain, name)
		}
		all = append(all, of)
	}
	return all
}

type nodeService struct {
	namewardv1.UnimplementedNodeServiceServer
	*fleet
}

func (s *nodeService) GetNode(_ context.Context, request *namewardv1.GetNodeRequest) (*namewardv1.Node, error) {
	for _, node := range s.nodes {
		if node.GetName() == request.GetName() {
			return node, nil
		}
	}
	return nil, status.Errorf(codes.NotFound, "%s: not found", request.GetName())
}

func (s *nodeService) ListNodes(_ context.Context, request *namewardv1.ListNodesRequest) (*namewardv1.ListNodesResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	nodes, next := page(s.fleet, s.selected(request.GetFilter()), request.GetPageSize(), request.GetPageToken())
	return &namewardv1.ListNodesResponse{Nodes: nodes, NextPageToken: next}, nil
}

// selected returns the nodes that a filter selects, but for what policies apply to them. The caller holds mu.
func (s *nodeService) selected(filter *namewardv1.NodeFilter) (nodes []*namewardv1.Node) {
	for _, node := range s.nodes {
		has := filter.GetState() == 0 || stateCell(node.GetStatus()).text == strings.ToLower(filter.GetState().String())
		for key, value := range filter.GetMatchLabels() {
			has = has && node.GetLabels()[key] == value
		}
		if has {
			nodes = append(nodes, node)
		}
	}
	return nodes
}

// WatchNodes sends the snapshot, the first node again as it is, that it is gone, and ends like a server that stops.
func (s *nodeService) WatchNodes(request *namewardv1.WatchNodesRequest, stream grpc.ServerStreamingServer[namewardv1.WatchNodesResponse]) error {
	s.mu.Lock()
	nodes := s.selected(request.GetFilter())
	s.mu.Unlock()
	responses := []*namewardv1.WatchNodesResponse{}
	for _, node := range nodes {
		responses = append(responses, &namewardv1.WatchNodesResponse{Change: namewardv1.WatchNodesResponse_PUT, Node: node})
	}
	responses = append(responses, &namewardv1.WatchNodesResponse{Synced: true}, responses[0], &namewardv1.WatchNodesResponse{
		Change: namewardv1.WatchNodesResponse_DELETE, Node: &namewardv1.Node{Name: nodes[0].GetName()},
	})
	for _, response := range responses {
		if err := stream.Send(response); err != nil {
			return err
		}
	}
	return status.Error(codes.Unavailable, "the server stops")
}

func (s *nodeService) DeleteNode(_ context.Context, request *namewardv1.DeleteNodeRequest) (*emptypb.Empty, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, node := range s.nodes {
		switch {
		case node.GetName() != request.GetName():
		case node.GetStatus().GetConnected():
			return nil, status.Errorf(codes.FailedPrecondition, "%s: its agent is connected", node.GetName())
		default:
			s.nodes = slices.Delete(slices.Clone(s.nodes), i, i+1)
			return &emptypb.Empty{}, nil
		}
	}
	if request.GetAllowMissing() {
		return &emptypb.Empty{}, nil
	}
	return nil, status.Errorf(codes.NotFound, "%s: not found", request.GetName())
}

// ruleSet is what the fleet has for every node.
func (f *fleet) ruleSet(inForce bool) (*namewardv1.GetRuleSetResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	response := &namewardv1.GetRuleSetResponse{RuleSetId: "0badc0de", Revision: 9, InForce: inForce}
	if !inForce {
		response.AppliedRuleSetId, response.AppliedRevision, response.LastError = "feedface", 4, "no room"
	}
	for _, name := range slices.Sorted(maps.Keys(f.policies)) {
		policy, err := ruleset.ParsePolicy(f.policies[name])
		if err != nil {
			return nil, err
		}
		response.Policies = append(response.Policies, ruleset.New([]ruleset.Policy{policy}).Message().GetPolicies()...)
	}
	for _, name := range slices.Sorted(maps.Keys(f.sets)) {
		response.DomainSets = append(response.DomainSets, &namewardv1.DomainSet{Name: name, DomainCount: int32(len(f.sets[name].GetDomains()))})
	}
	return response, nil
}

func (s *nodeService) GetRuleSet(_ context.Context, request *namewardv1.GetRuleSetRequest) (*namewardv1.GetRuleSetResponse, error) {
	return s.ruleSet(request.GetNode() == "nodes/lab")
}

func (s *localService) GetRuleSet(context.Context, *namewardv1.GetRuleSetRequest) (*namewardv1.GetRuleSetResponse, error) {
	return s.ruleSet(true)
}

func (s *nodeService) ExplainConnection(ctx context.Context, request *namewardv1.ExplainConnectionRequest) (*namewardv1.ExplainConnectionResponse, error) {
	if request.GetNode() != "" {
		if _, err := s.GetNode(ctx, &namewardv1.GetNodeRequest{Name: request.GetNode()}); err != nil {
			bad := &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "node", Description: "no such node has ever connected"}}}
			answer, err := status.New(codes.InvalidArgument, "node: no such node has ever connected").WithDetails(bad)
			if err != nil {
				return nil, err
			}
			return nil, answer.Err()
		}
	}
	return s.explain(request)
}

type observationService struct {
	namewardv1.UnimplementedObservationServiceServer
	*fleet
}

func (s *observationService) ListMappings(_ context.Context, request *namewardv1.ListMappingsRequest) (*namewardv1.ListMappingsResponse, error) {
	return s.listMappings(request, ""), nil
}

// WatchMappings sends the snapshot, then that each mapping ended, and ends like a server that stops.
func (s *observationService) WatchMappings(request *namewardv1.WatchMappingsRequest, stream grpc.ServerStreamingServer[namewardv1.WatchMappingsResponse]) error {
	selected := s.listMappings(&namewardv1.ListMappingsRequest{Filter: request.GetFilter()}, "").GetMappings()
	for _, mapping := range selected {
		if err := stream.Send(&namewardv1.WatchMappingsResponse{Change: namewardv1.WatchMappingsResponse_PUT, Mapping: mapping}); err != nil {
			return err
		}
	}
	if err := stream.Send(&namewardv1.WatchMappingsResponse{Synced: true}); err != nil {
		return err
	}
	for _, mapping := range selected {
		if err := stream.Send(&namewardv1.WatchMappingsResponse{Change: namewardv1.WatchMappingsResponse_DELETE, Mapping: mapping}); err != nil {
			return err
		}
	}
	return status.Error(codes.Unavailable, "the server stops")
}

func (s *observationService) ListFlowEvents(_ context.Context, request *namewardv1.ListFlowEventsRequest) (*namewardv1.ListFlowEventsResponse, error) {
	return s.listFlows(request, "")
}

// WatchFlowEvents sends the snapshot, and ends like a server that stops.
func (s *observationService) WatchFlowEvents(request *namewardv1.WatchFlowEventsRequest, stream grpc.ServerStreamingServer[namewardv1.WatchFlowEventsResponse]) error {
	list, err := s.listFlows(&namewardv1.ListFlowEventsRequest{Filter: request.GetFilter()}, "")
	if err != nil {
		return err
	}
	for _, event := range list.GetFlowEvents() {
		if err := stream.Send(&namewardv1.WatchFlowEventsResponse{FlowEvent: event}); err != nil {
			return err
		}
	}
	if err := stream.Send(&namewardv1.WatchFlowEventsResponse{Synced: true}); err != nil {
		return err
	}
	return status.Error(codes.Unavailable, "the server stops")
}

// localService answers for nodes/lab.
type localService struct {
	agentv1.UnimplementedLocalServiceServer
	*fleet
}

func (s *localService) GetStatus(context.Context, *agentv1.GetStatusRequest) (*agentv1.GetStatusResponse, error) {
	return &agentv1.GetStatusResponse{
		Node: s.nodes[1], Server: "10.0.0.1:7443", LiveMappings: 2,
		ConnectionChangeTime: timestamppb.New(s.moment.Add(-time.Hour)), StartTime: timestamppb.New(s.moment.Add(-50 * time.Hour)),
		Degraded: []string{"journal: the disk is full: free space on /var/lib/nameward"},
	}, nil
}

func (s *localService) ListMappings(_ context.Context, request *namewardv1.ListMappingsRequest) (*namewardv1.ListMappingsResponse, error) {
	return s.listMappings(request, "nodes/lab"), nil
}

func (s *localService) ExplainConnection(_ context.Context, request *namewardv1.ExplainConnectionRequest) (*namewardv1.ExplainConnectionResponse, error) {
	return s.explain(request)
}

func (s *localService) ListFlowEvents(_ context.Context, request *namewardv1.ListFlowEventsRequest) (*namewardv1.ListFlowEventsResponse, error) {
	return s.listFlows(request, "nodes/lab")
}

// WatchEvents sends the snapshot of the kind that is asked for, and ends like an agent that stops.
func (s *localService) WatchEvents(request *agentv1.WatchEventsRequest, stream grpc.ServerStreamingServer[agentv1.WatchEventsResponse]) error {
	var events []*agentv1.WatchEventsResponse
	if slices.Contains(request.GetKinds(), agentv1.WatchEventsRequest_MAPPING) {
		for _, m := range s.listMappings(&namewardv1.ListMappingsRequest{Filter: request.GetMappingFilter()}, "nodes/lab").GetMappings() {
			events = append(events, &agentv1.WatchEventsResponse{Event: &agentv1.WatchEventsResponse_Mapping{Mapping: m}})
		}
	} else {
		list, err := s.listFlows(&namewardv1.ListFlowEventsRequest{Filter: request.GetFlowEventFilter()}, "nodes/lab")
		if err != nil {
			return err
		}
		for _, e := range list.GetFlowEvents() {
			events = append(events, &agentv1.WatchEventsResponse{Event: &agentv1.WatchEventsResponse_FlowEvent{FlowEvent: e}})
		}
	}
	for _, event := range append(events, &agentv1.WatchEventsResponse{Synced: true}) {
		if err := stream.Send(event); err != nil {
			return err
		}
	}
	return status.Error(codes.Unavailable, "the agent stops")
}
