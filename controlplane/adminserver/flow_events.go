package adminserver

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/nameward/nameward/api/flow"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/token"
	"github.com/nameward/nameward/controlplane/ingest"
)

// ListFlowEvents lists flow events. A page goes on where the one before ended, whatever came or went
// meanwhile.
func (s *ObservationService) ListFlowEvents(_ context.Context, request *namewardv1.ListFlowEventsRequest) (*namewardv1.ListFlowEventsResponse, error) {
	filter, after, err := parseListFlowEvents(request)
	if err != nil {
		return nil, toStatus(s.log, err)
	}
	events, more := s.flows.List(filter, after, pageSize(request.GetPageSize()))
	response, size := &namewardv1.ListFlowEventsResponse{}, 0
	response.Unreachable, _ = s.peers.Unreachable()
	for i, e := range events {
		message := e.ToProto(e.Node)
		size += proto.Size(message)
		if i > 0 && size > pageBytes {
			more = true
			break
		}
		response.FlowEvents = append(response.FlowEvents, message)
		after = e.Position()
	}
	if more {
		last, err := after.Marshal()
		if err != nil {
			return nil, toStatus(s.log, err)
		}
		response.NextPageToken = token.Page(request, string(last))
	}
	return response, nil
}

// parseListFlowEvents returns which flow events are asked for, and behind which position.
func parseListFlowEvents(request *namewardv1.ListFlowEventsRequest) (flow.Filter, flow.Position, error) {
	filter, filterErr := flow.ParseFilter("filter", request.GetFilter())
	after, tokenErr := parseFlowPosition(request)
	return filter, after, errors.Join(filterErr, tokenErr)
}

func parseFlowPosition(request token.List) (flow.Position, error) {
	wire, err := parsePageToken(request)
	if err != nil || wire == "" {
		return flow.Position{}, err
	}
	position, err := flow.ParsePosition([]byte(wire))
	if err != nil {
		return flow.Position{}, badPageToken(request)
	}
	return position, nil
}

// WatchFlowEvents streams flow events: what is known, then what is new or seen again.
func (s *ObservationService) WatchFlowEvents(request *namewardv1.WatchFlowEventsRequest, stream grpc.ServerStreamingServer[namewardv1.WatchFlowEventsResponse]) error {
	filter, err := flow.ParseFilter("filter", request.GetFilter())
	if err != nil {
		return toStatus(s.log, err)
	}
	ctx, release := untilStopping(stream.Context(), s.stopping)
	defer release()
	return toStatus(s.log, s.watchFlows(ctx, filter, stream.Send))
}

func (s *ObservationService) watchFlows(ctx context.Context, filter flow.Filter, send func(*namewardv1.WatchFlowEventsResponse) error) error {
	unreachable, _ := s.peers.Unreachable()
	ctx, release := whileReached(ctx, s.peers, unreachable)
	defer release()
	watch := s.flows.Watch(filter)
	defer watch.Close()
	for _, e := range watch.Known {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := send(&namewardv1.WatchFlowEventsResponse{FlowEvent: e.ToProto(e.Node)}); err != nil {
			return err
		}
	}
	watch.Known = nil // not to be held as long as the stream lives
	if err := send(&namewardv1.WatchFlowEventsResponse{Synced: true, Unreachable: unreachable}); err != nil {
		return err
	}
	for {
		e, err := watch.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, ingest.ErrSlow):
			return fmt.Errorf("%w: %w", errTooSlow, err)
		case err != nil:
			return err
		}
		if err := send(&namewardv1.WatchFlowEventsResponse{FlowEvent: e.ToProto(e.Node)}); err != nil {
			return err
		}
	}
}
