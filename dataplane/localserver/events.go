package localserver

import (
	"errors"
	"slices"
	"time"

	"google.golang.org/grpc"

	"github.com/nameward/nameward/api/flow"
	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	"github.com/nameward/nameward/dataplane/observe"
)

// eventPage is how many changes are read at once.
const eventPage = 256

// eventWatch is one reader of events, and how far it has come.
type eventWatch struct {
	server *Server
	send   func(*agentv1.WatchEventsResponse) error

	keepMapping      func(*observe.Mapping) bool // nil: no mappings
	flows            *flow.Filter                // nil: no flow events
	mappings, events observe.Cursor
}

// WatchEvents streams what the node sees: what there is, then what changes.
func (s *Server) WatchEvents(request *agentv1.WatchEventsRequest, stream grpc.ServerStreamingServer[agentv1.WatchEventsResponse]) error {
	w, err := s.newEventWatch(request)
	if err != nil {
		return invalid(err)
	}
	w.send = stream.Send
	for synced := false; ; {
		moreMappings, err := w.sendMappings()
		if err != nil {
			return err
		}
		moreFlows, err := w.sendFlows()
		if err != nil {
			return err
		}
		if !synced {
			synced = true
			if err := stream.Send(&agentv1.WatchEventsResponse{Synced: true}); err != nil {
				return err //nolint:wrapcheck // of the stream
			}
		}
		select {
		case <-stream.Context().Done():
			return nil
		case <-moreMappings:
		case <-moreFlows:
		}
	}
}

func (s *Server) newEventWatch(request *agentv1.WatchEventsRequest) (*eventWatch, error) {
	w := &eventWatch{server: s}
	keep, mappingErr := s.filter("mapping_filter", request.GetMappingFilter())
	filter, flowErr := flow.ParseFilter("flow_event_filter", request.GetFlowEventFilter())
	errs := []error{mappingErr, flowErr}
	kinds := request.GetKinds()
	for _, kind := range kinds {
		if kind != agentv1.WatchEventsRequest_MAPPING && kind != agentv1.WatchEventsRequest_FLOW_EVENT {
			errs = append(errs, fieldError("kinds", kind.String(), "is neither MAPPING nor FLOW_EVENT"))
		}
	}
	if len(kinds) == 0 || slices.Contains(kinds, agentv1.WatchEventsRequest_MAPPING) {
		w.keepMapping = keep
	}
	if len(kinds) == 0 || slices.Contains(kinds, agentv1.WatchEventsRequest_FLOW_EVENT) {
		w.flows = &filter
	}
	return w, errors.Join(errs...)
}

// sendMappings sends the mappings that changed, and returns a channel that closes when others do.
func (w *eventWatch) sendMappings() (<-chan struct{}, error) {
	for w.keepMapping != nil {
		changed, next, more := w.server.table.Changes(w.mappings, eventPage)
		w.mappings = next
		now := time.Now()
		for i := range changed {
			if m := &changed[i]; m.ExpiresAt.After(now) && w.keepMapping(m) {
				event := &agentv1.WatchEventsResponse_Mapping{Mapping: m.ToProto(w.server.node, time.Now())}
				if err := w.send(&agentv1.WatchEventsResponse{Event: event}); err != nil {
					return nil, err
				}
			}
		}
		if len(changed) < eventPage {
			return more, nil
		}
	}
	return nil, nil
}

// sendFlows does the same of flow events.
func (w *eventWatch) sendFlows() (<-chan struct{}, error) {
	for w.flows != nil {
		changed, next, more := w.server.flows.Changes(w.events, eventPage)
		w.events = next
		for i := range changed {
			if e := &changed[i]; w.flows.Match(w.server.node, e) {
				event := &agentv1.WatchEventsResponse_FlowEvent{FlowEvent: e.ToProto(w.server.node)}
				if err := w.send(&agentv1.WatchEventsResponse{Event: event}); err != nil {
					return nil, err
				}
			}
		}
		if len(changed) < eventPage {
			return more, nil
		}
	}
	return nil, nil
}
