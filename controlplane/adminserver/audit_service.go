package adminserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/api/token"
	"github.com/nameward/nameward/controlplane/audit"
)

// AuditService serves nameward.v1.AuditService. Requests must have passed the Validator.
type AuditService struct {
	namewardv1.UnimplementedAuditServiceServer

	events *audit.Log
	log    *slog.Logger
}

// NewAuditService returns the service.
func NewAuditService(events *audit.Log, log *slog.Logger) *AuditService {
	return &AuditService{events: events, log: log}
}

// ListAuditEvents lists audit events, the latest first. A page goes on where the one before ended, whatever came
// meanwhile.
func (s *AuditService) ListAuditEvents(ctx context.Context, request *namewardv1.ListAuditEventsRequest) (*namewardv1.ListAuditEventsResponse, error) {
	filter, before, err := parseListAuditEvents(request)
	if err != nil {
		return nil, toStatus(s.log, err)
	}
	page, err := s.events.List(ctx, filter, before, pageSize(request.GetPageSize()), pageBytes)
	if err != nil {
		return nil, toStatus(s.log, err)
	}
	response := &namewardv1.ListAuditEventsResponse{AuditEvents: page.Events, DamagedLines: int64(page.Damaged)}
	if page.More {
		response.NextPageToken = token.Page(request, fmt.Sprintf("%d %d", page.Next.File, page.Next.Event))
	}
	return response, nil
}

// parseListAuditEvents returns which events are asked for, and before which position.
func parseListAuditEvents(request *namewardv1.ListAuditEventsRequest) (audit.Filter, audit.Position, error) {
	message := request.GetFilter()
	since, sinceErr := readMoment("filter.since", message.GetSince())
	until, untilErr := readMoment("filter.until", message.GetUntil())
	filter := audit.Filter{
		Resource: message.GetResource(), Identity: message.GetIdentity(), Outcome: message.GetOutcome(), Since: since, Until: until,
	}
	before, tokenErr := parseAuditPosition(request)
	return filter, before, errors.Join(sinceErr, untilErr, tokenErr)
}

func parseAuditPosition(request token.List) (before audit.Position, err error) {
	text, err := parsePageToken(request)
	if err != nil || text == "" {
		return before, err
	}
	if _, err := fmt.Sscanf(text, "%d %d", &before.File, &before.Event); err != nil || before.File == 0 || before.Event < 0 {
		return audit.Position{}, badPageToken(request)
	}
	return before, nil
}

// readMoment reads a time; the zero time when it is not set.
func readMoment(field string, t *timestamppb.Timestamp) (time.Time, error) {
	if t == nil {
		return time.Time{}, nil
	}
	if err := t.CheckValid(); err != nil {
		return time.Time{}, &ruleset.FieldError{Field: field, Value: t.String(), Reason: err.Error()}
	}
	return t.AsTime(), nil
}
