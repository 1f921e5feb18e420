package localserver

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/nameward/nameward/api/flow"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/token"
)

// ListFlowEvents lists the node's flow events in order of workload and destination, a page at a time.
func (s *Server) ListFlowEvents(_ context.Context, request *namewardv1.ListFlowEventsRequest) (*namewardv1.ListFlowEventsResponse, error) {
	s.agent.TakeIn()
	filter, err := flow.ParseFilter("filter", request.GetFilter())
	after, pageErr := parsePosition(request)
	if err := errors.Join(err, pageErr); err != nil {
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
		response.NextPageToken = token.Page(request, string(last))
	}
	return response, nil
}

func parsePosition(request *namewardv1.ListFlowEventsRequest) (flow.Position, error) {
	wire, err := parsePage(request)
	if err != nil || wire == "" {
		return flow.Position{}, err
	}
	position, err := flow.ParsePosition([]byte(wire))
	if err != nil {
		return flow.Position{}, badPageToken(request)
	}
	return position, nil
}
