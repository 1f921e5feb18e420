package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

// fleet is the state behind the services that the tests talk to. Its clock stands still at moment.
type fleet struct {
	moment time.Time
	// pageLimit is the largest page, small in tests of paging.
	pageLimit int

	mu       sync.Mutex // guards what follows
	revision int
	policies map[string]*namewardv1.Policy
	sets     map[string]*namewardv1.DomainSet
	nodes    []*namewardv1.Node
	mappings []*namewardv1.Mapping
	flows    []*namewardv1.FlowEvent
	changed  chan struct{} // closed and replaced at each change
}

func newFleet(moment time.Time) *fleet {
	at := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(moment.Add(d)) }
	mapping := func(domain, address, node, client string, expires time.Duration, chain ...string) *namewardv1.Mapping {
		return &namewardv1.Mapping{
			Domain: domain, Address: address, Node: node, Client: client, Chain: chain,
			FirstSeenTime: at(-3 * time.Minute), LastSeenTime: at(-18 * time.Second), ExpireTime: at(expires),
		}
	}
	return &fleet{
		moment: moment, pageLimit: 1000, changed: make(chan struct{}),
		policies: map[string]*namewardv1.Policy{}, sets: map[string]*namewardv1.DomainSet{},
		nodes: []*namewardv1.Node{
			{Name: "nodes/build-7", Labels: map[string]string{"role": "build"}, Status: &namewardv1.NodeStatus{
				AgentVersion: "v0.1.0", Kernel: "6.1.0-32-amd64", IptablesBackend: "legacy",
				LastContactTime: at(-26 * time.Hour), WantedRevision: 9, WantedTime: at(-time.Hour),
				AppliedRevision: 4, AppliedTime: at(-27 * time.Hour),
			}},
			{Name: "nodes/lab", Labels: map[string]string{"role": "web", "zone": "a"}, Status: &namewardv1.NodeStatus{
				Connected: true, AgentVersion: "v0.1.0", Kernel: "6.18.5", IptablesBackend: "nft",
				LastContactTime: at(-2 * time.Second), WantedRevision: 9, WantedTime: at(-time.Hour),
				AppliedRevision: 9, AppliedTime: at(-time.Hour), RuleSetId: "0badc0de",
				CertificateExpireTime: at(17*24*time.Hour + 90*time.Minute),
				TrustedResolvers:      []string{"192.0.2.53:53"}, PolicyServers: []string{"10.0.0.1:7443"},
				Addresses: []string{"10.1.0.1", "fd01::1"}, MoreAddresses: true,
				Counters: map[string]uint64{"verdicts_deny": 3, "dns_responses_learned": 41},
			}},
		},
		mappings: []*namewardv1.Mapping{
			mapping("api.example.com", "192.0.2.7", "nodes/lab", "10.1.0.7", 42*time.Second),
			mapping("registry.docker.io", "2001:db8::5", "nodes/lab", "10.1.0.7", 5*time.Minute+3*time.Second, "edge.docker.io", "cdn.example.net"),
			mapping("registry.docker.io", "198.51.100.9", "nodes/build-7", "10.9.0.2", 2*time.Hour+90*time.Second),
		},
		flows: []*namewardv1.FlowEvent{
			{
				Verdict: namewardv1.Verdict_DENY, Mode: namewardv1.Policy_ENFORCE, Node: "nodes/build-7",
				Workload:    &namewardv1.FlowEvent_Workload{Host: true, Uid: proto.Uint32(0)},
				Destination: &namewardv1.FlowEvent_Destination{Address: "2001:db8::5", Port: 443, Protocol: namewardv1.Protocol_TCP},
				Reason:      namewardv1.FlowEvent_NO_RULE, Count: 12, FirstTime: at(-time.Hour), LastTime: at(-2 * time.Minute),
				Domains: []string{"registry.docker.io", "mirror.example"},
			},
			{
				Verdict: namewardv1.Verdict_DENY, Mode: namewardv1.Policy_AUDIT, Node: "nodes/lab",
				Workload:    &namewardv1.FlowEvent_Workload{Address: "10.1.0.7", Interface: "veth3"},
				Destination: &namewardv1.FlowEvent_Destination{Address: "192.0.2.7", ProtocolNumber: 47},
				Reason:      namewardv1.FlowEvent_RULE, Policy: "policies/web-egress", Rule: proto.Int32(0),
				Count: 1, FirstTime: at(-4 * time.Second), LastTime: at(-4 * time.Second),
			},
			{
				Verdict: namewardv1.Verdict_DENY, Mode: namewardv1.Policy_ENFORCE, Node: "nodes/lab",
				Workload:    &namewardv1.FlowEvent_Workload{Address: "10.1.0.8"},
				Destination: &namewardv1.FlowEvent_Destination{Address: "192.0.2.53", Port: 53, Protocol: namewardv1.Protocol_UDP},
				Reason:      namewardv1.FlowEvent_RULE, Policy: "policies/web-egress", Rule: proto.Int32(2), Question: "ads.tracker.example",
				Count: 3, FirstTime: at(-9 * time.Second), LastTime: at(-8 * time.Second),
			},
		},
	}
}

// serve starts the services on loopback, and the agent of nodes/lab on a Unix socket.
func (f *fleet) serve(t *testing.T, socket string) (address string) {
	t.Helper()
	server := grpc.NewServer()
	namewardv1.RegisterPolicyServiceServer(server, &policyService{fleet: f})
	namewardv1.RegisterDomainSetServiceServer(server, &domainSetService{fleet: f})
	namewardv1.RegisterNodeServiceServer(server, &nodeService{fleet: f})
	namewardv1.RegisterObservationServiceServer(server, &observationService{fleet: f})
	namewardv1.RegisterAuditServiceServer(server, &auditService{fleet: f})
	agent := grpc.NewServer()
	agentv1.RegisterLocalServiceServer(agent, &localService{fleet: f})
	start := func(server *grpc.Server, network, address string) string {
		listener, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- server.Serve(listener) }()
		t.Cleanup(func() {
			server.Stop()
			if err := <-done; err != nil {
				t.Errorf("serve: %v", err)
			}
		})
		return listener.Addr().String()
	}
	start(agent, "unix", socket)
	return start(server, "tcp", "127.0.0.1:0")
}

// touch tells the watchers. The caller holds mu.
func (f *fleet) touch() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// page cuts the page that a token, a position, begins.
func page[T any](f *fleet, items []T, size int32, token string) ([]T, string) {
	from, _ := strconv.Atoi(token)
	to := min(len(items), from+min(int(cmp.Or(size, 100)), f.pageLimit))
	if to == len(items) {
		return items[from:to], ""
	}
	return items[from:to], strconv.Itoa(to)
}

type policyService struct {
	namewardv1.UnimplementedPolicyServiceServer
	*fleet
}

func (s *policyService) sorted() []*namewardv1.Policy {
	return slices.SortedFunc(maps.Values(s.policies), func(a, b *namewardv1.Policy) int { return cmp.Compare(a.GetName(), b.GetName()) })
}

func (s *policyService) GetPolicy(_ context.Context, request *namewardv1.GetPolicyRequest) (*namewardv1.Policy, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if policy, ok := s.policies[request.GetName()]; ok {
		return policy, nil
	}
	return nil, status.Errorf(codes.NotFound, "%s: not found", request.GetName())
}

func (s *policyService) ListPolicies(_ context.Context, request *namewardv1.ListPoliciesRequest) (*namewardv1.ListPoliciesResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	selected := slices.DeleteFunc(s.sorted(), func(policy *namewardv1.Policy) bool { return !selectsPolicy(request.GetFilter(), policy) })
	policies, next := page(s.fleet, selected, request.GetPageSize(), request.GetPageToken())
	return &namewardv1.ListPoliciesResponse{Policies: policies, NextPageToken: next}, nil
}

func (s *policyService) UpdatePolicy(_ context.Context, request *namewardv1.UpdatePolicyRequest) (*namewardv1.Policy, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := violationsOf(request.GetPolicy()); err != nil {
		return nil, err
	}
	if err := s.missingSets(request.GetPolicy()); err != nil {
		return nil, err
	}
	name := request.GetPolicy().GetName()
	old, exists := s.policies[name]
	switch {
	case !exists && !request.GetAllowMissing():
		return nil, status.Errorf(codes.NotFound, "%s: not found", name)
	case exists && request.GetPolicy().GetEtag() != "" && request.GetPolicy().GetEtag() != old.GetEtag():
		return nil, status.Errorf(codes.Aborted, "%s: has changed since it was read: the etag is stale", name)
	}
	policy := proto.CloneOf(request.GetPolicy())
	policy.CreateTime, policy.UpdateTime = timestamppb.New(s.moment), timestamppb.New(s.moment)
	if exists {
		policy.CreateTime = old.GetCreateTime()
	}
	if request.GetValidateOnly() {
		return policy, nil
	}
	s.revision++
	policy.Etag = fmt.Sprintf("e%d", s.revision)
	s.policies[name] = policy
	s.touch()
	return policy, nil
}

func (s *policyService) DeletePolicy(_ context.Context, request *namewardv1.DeletePolicyRequest) (*emptypb.Empty, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.policies[request.GetName()]; !ok && !request.GetAllowMissing() {
		return nil, status.Errorf(codes.NotFound, "%s: not found", request.GetName())
	}
	delete(s.policies, request.GetName())
	s.touch()
	return &emptypb.Empty{}, nil
}

func (s *policyService) WatchPolicies(_ *namewardv1.WatchPoliciesRequest, stream grpc.ServerStreamingServer[namewardv1.WatchPoliciesResponse]) error {
	known := map[string]*namewardv1.Policy{}
	for first := true; ; first = false {
		s.mu.Lock()
		policies, changed := s.sorted(), s.changed
		s.mu.Unlock()
		left := maps.Clone(known)
		for _, policy := range policies {
			delete(left, policy.GetName())
			if known[policy.GetName()] == policy {
				continue
			}
			known[policy.GetName()] = policy
			if err := stream.Send(&namewardv1.WatchPoliciesResponse{Change: namewardv1.WatchPoliciesResponse_PUT, Policy: policy}); err != nil {
				return err
			}
		}
		for name := range left {
			delete(known, name)
			gone := &namewardv1.Policy{Name: name}
			if err := stream.Send(&namewardv1.WatchPoliciesResponse{Change: namewardv1.WatchPoliciesResponse_DELETE, Policy: gone}); err != nil {
				return err
			}
		}
		if first {
			if err := stream.Send(&namewardv1.WatchPoliciesResponse{Synced: true}); err != nil {
				return err
			}
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return nil
		}
	}
}

// violationsOf judges a policy by a few of the server's rules, in the server's form.
func violationsOf(policy *namewardv1.Policy) error {
	bad := &errdetails.BadRequest{}
	add := func(description, field string, args ...any) {
		bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{
			Field: fmt.Sprintf(field, args...), Description: description,
		})
	}
	for i, workload := range policy.GetWorkloads() {
		if workload.Uid != nil {
			add("uid is not supported by this version", "policy.workloads[%d].uid", i)
		}
		if workload.GetSystemdUnit() != "" {
			add("systemd_unit is not supported by this version", "policy.workloads[%d].systemd_unit", i)
		}
	}
	for i, rule := range policy.GetRules() {
		for j, pattern := range rule.GetDomains() {
			if strings.ContainsAny(pattern, " /") {
				add(strconv.Quote(pattern)+" is not a domain pattern", "policy.rules[%d].domains[%d]", i, j)
			}
		}
	}
	if len(bad.GetFieldViolations()) == 0 {
		return nil
	}
	s, err := status.New(codes.InvalidArgument, "the policy is not valid").WithDetails(bad)
	if err != nil {
		return err
	}
	return s.Err()
}

// selectsPolicy compares a policy to a filter, but for what applies to which node.
func selectsPolicy(filter *namewardv1.PolicyFilter, policy *namewardv1.Policy) bool {
	rules := policy.GetRules()
	names := func(rule *namewardv1.Rule) bool { return slices.Contains(rule.GetDomainSets(), filter.GetDomainSet()) }
	covers := func(rule *namewardv1.Rule) bool {
		return slices.ContainsFunc(rule.GetDomains(), func(pattern string) bool { return matches(pattern, filter.GetDomain()) })
	}
	return (filter.GetDomainSet() == "" || slices.ContainsFunc(rules, names)) && (filter.GetDomain() == "" || slices.ContainsFunc(rules, covers)) &&
		(filter.GetMode() == 0 || filter.GetMode() == policy.GetMode())
}

// selects compares a mapping to a filter.
func selects(filter *namewardv1.MappingFilter, mapping *namewardv1.Mapping) bool {
	names := append([]string{mapping.GetDomain()}, mapping.GetChain()...)
	named := filter.GetDomain() == "" || slices.ContainsFunc(names, func(name string) bool { return matches(filter.GetDomain(), name) })
	within := filter.GetAddress() == "" || filter.GetAddress() == mapping.GetAddress()
	if prefix, err := netip.ParsePrefix(filter.GetAddress()); err == nil {
		within = prefix.Contains(netip.MustParseAddr(mapping.GetAddress()))
	}
	return named && within && (filter.GetNode() == "" || filter.GetNode() == mapping.GetNode())
}

func matches(pattern, name string) bool {
	if base, wildcard := strings.CutPrefix(pattern, "*"); wildcard {
		return strings.HasSuffix(name, base) && len(name) > len(base)
	}
	return pattern == name
}
