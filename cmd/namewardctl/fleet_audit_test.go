package main

import (
	"context"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

type auditService struct {
	namewardv1.UnimplementedAuditServiceServer
	fleet *fleet
}

func (s *auditService) events() []*namewardv1.AuditEvent {
	at := func(ago time.Duration) *timestamppb.Timestamp { return timestamppb.New(s.fleet.moment.Add(-ago)) }
	ada := &namewardv1.AuditEvent_Caller{Identity: "spiffe://nameward/editor/ada", Role: "editor", Address: "192.0.2.10:51000"}
	return []*namewardv1.AuditEvent{
		{
			Name: "auditEvents/4", CreateTime: at(time.Minute), Caller: &namewardv1.AuditEvent_Caller{Identity: "spiffe://nameward/node/lab", Role: "node", Address: "10.1.0.1:40000"},
			Method: "/nameward.v1.PolicyService/DeletePolicy", Outcome: namewardv1.AuditEvent_DENIED, Count: 12,
			Reason: "spiffe://nameward/node/lab has the role node, and /nameward.v1.PolicyService/DeletePolicy needs the role editor or one above it",
		},
		{
			Name: "auditEvents/3", CreateTime: at(time.Hour), Caller: ada, Method: "/nameward.v1.PolicyService/DeletePolicy",
			Resource: "policies/old", Action: namewardv1.AuditEvent_DELETE,
		},
		{
			Name: "auditEvents/2", CreateTime: at(2 * time.Hour), Caller: ada, Method: "/nameward.v1.PolicyService/UpdatePolicy",
			Resource: "policies/web", Action: namewardv1.AuditEvent_UPDATE, Outcome: namewardv1.AuditEvent_NOT_COMMITTED, Reason: "object has another revision",
			Domains: &namewardv1.DomainsChange{AddedCount: 1, RemovedCount: 2},
		},
		{
			Name: "auditEvents/1", CreateTime: at(26 * time.Hour), Caller: ada, Method: "/nameward.v1.DomainSetService/CreateDomainSet",
			Resource: "domainSets/saas", Action: namewardv1.AuditEvent_CREATE, Outcome: namewardv1.AuditEvent_COMMITTED, Revision: 7, EndTime: at(26 * time.Hour),
			After:   &namewardv1.AuditedResource{Resource: &namewardv1.AuditedResource_DomainSet{DomainSet: &namewardv1.DomainSet{Name: "domainSets/saas", DomainCount: 3}}},
			Domains: &namewardv1.DomainsChange{AddedCount: 3, Added: []string{"api.github.com", "docker.io", "*.docker.io"}},
		},
	}
}

// ListAuditEvents gives a page of pageLimit events that match.
func (s *auditService) ListAuditEvents(_ context.Context, request *namewardv1.ListAuditEventsRequest) (*namewardv1.ListAuditEventsResponse, error) {
	filter, response := request.GetFilter(), &namewardv1.ListAuditEventsResponse{}
	var matching []*namewardv1.AuditEvent
	for _, event := range s.events() {
		if strings.HasPrefix(event.GetResource(), filter.GetResource()) && (filter.GetIdentity() == "" || event.GetCaller().GetIdentity() == filter.GetIdentity()) &&
			(filter.GetOutcome() == 0 || event.GetOutcome() == filter.GetOutcome()) && (filter.GetSince() == nil || !event.GetCreateTime().AsTime().Before(filter.GetSince().AsTime())) {
			matching = append(matching, event)
		}
	}
	first := 0
	if request.GetPageToken() != "" {
		var err error
		if first, err = strconv.Atoi(request.GetPageToken()); err != nil {
			return nil, status.Error(codes.InvalidArgument, "page_token")
		}
	}
	last := min(len(matching), first+s.fleet.pageLimit)
	response.AuditEvents = matching[first:last]
	if last < len(matching) {
		response.NextPageToken = strconv.Itoa(last)
	}
	return response, nil
}
