package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

// fleetInline is how many domains a message of the fleet has at most, as the server has it.
const fleetInline = 10_000

type domainSetService struct {
	namewardv1.UnimplementedDomainSetServiceServer
	*fleet
}

// shown is a set as answers have it.
func shown(set *namewardv1.DomainSet) *namewardv1.DomainSet {
	set = proto.CloneOf(set)
	set.DomainCount = int32(len(set.GetDomains()))
	if len(set.GetDomains()) > fleetInline {
		set.Domains = nil
	}
	return set
}

func (s *domainSetService) GetDomainSet(_ context.Context, request *namewardv1.GetDomainSetRequest) (*namewardv1.DomainSet, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if set, ok := s.sets[request.GetName()]; ok {
		return shown(set), nil
	}
	return nil, status.Errorf(codes.NotFound, "%s: not found", request.GetName())
}

func (s *domainSetService) ListDomainSets(_ context.Context, request *namewardv1.ListDomainSetsRequest) (*namewardv1.ListDomainSetsResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sets := slices.SortedFunc(maps.Values(s.sets), func(a, b *namewardv1.DomainSet) int { return cmp.Compare(a.GetName(), b.GetName()) })
	for i, set := range sets {
		sets[i] = shown(set)
	}
	sets, next := page(s.fleet, sets, request.GetPageSize(), request.GetPageToken())
	return &namewardv1.ListDomainSetsResponse{DomainSets: sets, NextPageToken: next}, nil
}

func (s *domainSetService) ListDomains(_ context.Context, request *namewardv1.ListDomainsRequest) (*namewardv1.ListDomainsResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	set := s.sets[request.GetName()]
	domains := slices.DeleteFunc(slices.Clone(set.GetDomains()), func(domain string) bool {
		return request.GetMatching() != "" && !matches(domain, request.GetMatching())
	})
	var at int
	_, _ = fmt.Sscan(request.GetPageToken(), &at)
	end := min(len(domains), at+int(request.GetPageSize()))
	response := &namewardv1.ListDomainsResponse{Domains: domains[at:end], Etag: set.GetEtag()}
	if end < len(domains) {
		response.NextPageToken = fmt.Sprint(end)
	}
	return response, nil
}

// put stores a set, or says what would be stored. The caller holds mu.
func (s *domainSetService) put(set *namewardv1.DomainSet, validateOnly bool) (*namewardv1.DomainSet, error) {
	bad := &errdetails.BadRequest{}
	for i, domain := range set.GetDomains() {
		if strings.ContainsAny(domain, " /") {
			bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{
				Field: fmt.Sprintf("domain_set.domains[%d]", i), Description: fmt.Sprintf("%q: is not a domain pattern", domain),
			})
		}
	}
	if len(bad.GetFieldViolations()) > 0 {
		return nil, refusal(codes.InvalidArgument, "the domain set is not valid", bad)
	}
	set = proto.CloneOf(set)
	slices.Sort(set.Domains)
	set.Domains = slices.Compact(set.Domains)
	old, exists := s.sets[set.GetName()]
	set.CreateTime, set.UpdateTime = timestamppb.New(s.moment), timestamppb.New(s.moment)
	if exists {
		set.CreateTime = old.GetCreateTime()
	}
	if validateOnly {
		return shown(set), nil
	}
	s.revision++
	set.Etag = fmt.Sprintf("e%d", s.revision)
	s.sets[set.GetName()] = set
	return shown(set), nil
}

func (s *domainSetService) UpdateDomainSet(_ context.Context, request *namewardv1.UpdateDomainSetRequest) (*namewardv1.DomainSet, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	set := proto.CloneOf(request.GetDomainSet())
	old := s.sets[set.GetName()]
	switch {
	case set.GetEtag() != "" && set.GetEtag() != old.GetEtag():
		return nil, status.Errorf(codes.Aborted, "%s: has changed since it was read: the etag is stale", set.GetName())
	case slices.Equal(request.GetUpdateMask().GetPaths(), []string{"description"}):
		set.Domains = old.GetDomains()
	case len(old.GetDomains()) > fleetInline && len(set.GetDomains()) == 0:
		return nil, status.Errorf(codes.FailedPrecondition, "%s: its domains are too many", set.GetName())
	}
	return s.put(set, request.GetValidateOnly())
}

func (s *domainSetService) ReplaceDomains(stream grpc.ClientStreamingServer[namewardv1.ReplaceDomainsRequest, namewardv1.ReplaceDomainsResponse]) error {
	var first *namewardv1.ReplaceDomainsRequest
	var domains []string
	for {
		request, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if first == nil {
			first = request
		}
		domains = append(domains, request.GetDomains()...)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.sets[first.GetName()]
	set, err := s.put(&namewardv1.DomainSet{Name: first.GetName(), Description: old.GetDescription(), Domains: domains}, first.GetValidateOnly())
	if err != nil {
		return err
	}
	had := map[string]bool{}
	for _, domain := range old.GetDomains() {
		had[domain] = true
	}
	response := &namewardv1.ReplaceDomainsResponse{DomainSet: set}
	for _, domain := range domains {
		if !had[domain] {
			response.AddedCount++
		}
		delete(had, domain)
	}
	response.RemovedCount = int32(len(had))
	return stream.SendAndClose(response)
}

func (s *domainSetService) AddDomains(_ context.Context, request *namewardv1.AddDomainsRequest) (*namewardv1.AddDomainsResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.sets[request.GetName()]
	if old == nil {
		return nil, status.Errorf(codes.NotFound, "%s: not found", request.GetName())
	}
	next := proto.CloneOf(old)
	next.Domains = append(next.Domains, request.GetDomains()...)
	set, err := s.put(next, request.GetValidateOnly())
	return &namewardv1.AddDomainsResponse{DomainSet: set, AddedCount: set.GetDomainCount() - int32(len(old.GetDomains()))}, err
}

func (s *domainSetService) RemoveDomains(_ context.Context, request *namewardv1.RemoveDomainsRequest) (*namewardv1.RemoveDomainsResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.sets[request.GetName()]
	if old == nil {
		return nil, status.Errorf(codes.NotFound, "%s: not found", request.GetName())
	}
	next := proto.CloneOf(old)
	next.Domains = slices.DeleteFunc(next.Domains, func(domain string) bool { return slices.Contains(request.GetDomains(), domain) })
	set, err := s.put(next, request.GetValidateOnly())
	return &namewardv1.RemoveDomainsResponse{DomainSet: set, RemovedCount: int32(len(old.GetDomains())) - set.GetDomainCount()}, err
}

func (s *domainSetService) DeleteDomainSet(_ context.Context, request *namewardv1.DeleteDomainSetRequest) (*emptypb.Empty, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.sets[request.GetName()]; !ok && !request.GetAllowMissing() {
		return nil, status.Errorf(codes.NotFound, "%s: not found", request.GetName())
	}
	used := &errdetails.PreconditionFailure{}
	for _, policy := range slices.Sorted(maps.Keys(s.policies)) {
		for i, rule := range s.policies[policy].GetRules() {
			if slices.Contains(rule.GetDomainSets(), request.GetName()) {
				used.Violations = append(used.Violations, &errdetails.PreconditionFailure_Violation{
					Type: "IN_USE", Subject: policy, Description: fmt.Sprintf("names it in rules[%d].domain_sets[0]", i),
				})
			}
		}
	}
	if len(used.GetViolations()) > 0 {
		return nil, refusal(codes.FailedPrecondition, request.GetName()+": somebody names it", used)
	}
	delete(s.sets, request.GetName())
	return &emptypb.Empty{}, nil
}

// missingSets refuses a policy that names sets which do not exist, in the server's form. The caller holds mu.
func (f *fleet) missingSets(policy *namewardv1.Policy) error {
	failure, fields := &errdetails.PreconditionFailure{}, &errdetails.BadRequest{}
	for i, rule := range policy.GetRules() {
		for j, name := range rule.GetDomainSets() {
			if f.sets[name] != nil {
				continue
			}
			field := fmt.Sprintf("policy.rules[%d].domain_sets[%d]", i, j)
			failure.Violations = append(failure.Violations, &errdetails.PreconditionFailure_Violation{
				Type: "MISSING", Subject: name, Description: "does not exist (" + field + ")",
			})
			fields.FieldViolations = append(fields.FieldViolations, &errdetails.BadRequest_FieldViolation{
				Field: field, Description: fmt.Sprintf("%q: does not exist", name),
			})
		}
	}
	if len(failure.GetViolations()) == 0 {
		return nil
	}
	return refusal(codes.FailedPrecondition, policy.GetName()+": a set is missing", failure, fields)
}

func refusal(code codes.Code, text string, details ...protoadapt.MessageV1) error {
	s, err := status.New(code, text).WithDetails(details...)
	if err != nil {
		return err
	}
	return s.Err()
}
