package localserver

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"time"

	"github.com/nameward/nameward/api/flow"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

// ListFlowEvents lists the node's flow events in order of workload and destination, a page at a time.
func (s *Server) ListFlowEvents(_ context.Context, request *namewardv1.ListFlowEventsRequest) (*namewardv1.ListFlowEventsResponse, error) {
	s.agent.TakeIn()
	filter, err := flow.ParseFilter("filter", request.GetFilter())
	after, tokenErr := parseFlowToken(request.GetPageToken())
	if request.GetPageSize() < 0 {
		err = errors.Join(err, fieldError("page_size", "", "is negative"))
	}
	if err := errors.Join(err, tokenErr); err != nil {
		return nil, invalid(err)
	}
	events := s.flows.List(time.Now(), func(e *flow.Event) bool { return filter.Match(s.node, e) })
	first, found := slices.BinarySearchFunc(events, after, func(e flow.Event, after flow.Position) int {
		return flow.Position{Node: s.node, Key: e.Key}.Compare(after)
	})
	if found {
		first++
	}
	size := min(cmp.Or(int(request.GetPageSize()), defaultPage), largestPage)
	page := events[first:min(first+size, len(events))]
	response := &namewardv1.ListFlowEventsResponse{}
	for i := range page {
		response.FlowEvents = append(response.FlowEvents, page[i].ToProto(s.node))
	}
	if first+len(page) < len(events) {
		last, err := flow.Position{Node: s.node, Key: page[len(page)-1].Key}.Marshal()
		if err != nil {
			return nil, err //nolint:wrapcheck // it says what it did
		}
		response.NextPageToken = base64.RawURLEncoding.EncodeToString(last)
	}
	return response, nil
}

func parseFlowToken(token string) (flow.Position, error) {
	if token == "" {
		return flow.Position{}, nil
	}
	wire, err := base64.RawURLEncoding.DecodeString(token)
	if err == nil {
		var position flow.Position
		if position, err = flow.ParsePosition(wire); err == nil {
			return position, nil
		}
	}
	return flow.Position{}, fieldError("page_token", token, "is not the next_page_token of a page of this list")
}
