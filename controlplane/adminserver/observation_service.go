package adminserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/nameward/nameward/api/domain"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/controlplane/ingest"
	"github.com/nameward/nameward/controlplane/store"
)

// ObservationService serves nameward.v1.ObservationService. Requests must have passed the Validator.
type ObservationService struct {
	namewardv1.UnimplementedObservationServiceServer

	store    *store.Store
	mappings *ingest.Table
	flows    *ingest.Flows
	peers    Peers
	log      *slog.Logger
	stopping <-chan struct{}
}

// NewObservationService returns the service. When stopping closes, its streams end with UNAVAILABLE.
func NewObservationService(s *store.Store, mappings *ingest.Table, flows *ingest.Flows, log *slog.Logger, stopping <-chan struct{}) *ObservationService {
	return &ObservationService{store: s, mappings: mappings, flows: flows, peers: alone{}, log: log, stopping: stopping}
}

// Among has the service say when what it knows of other servers' nodes may be old.
func (s *ObservationService) Among(peers Peers) *ObservationService {
	s.peers = peers
	return s
}

// ListMappings lists live mappings. A page goes on where the one before ended, whatever came or went
// meanwhile.
func (s *ObservationService) ListMappings(_ context.Context, request *namewardv1.ListMappingsRequest) (*namewardv1.ListMappingsResponse, error) {
	filter, after, err := parseListMappings(request)
	if err := errors.Join(err, s.ofPolicy(&filter, request.GetFilter().GetPolicy())); err != nil {
		return nil, toStatus(s.log, err)
	}
	page := s.mappings.List(filter, after, pageSize(request.GetPageSize()), time.Now())
	response, size := &namewardv1.ListMappingsResponse{}, 0
	response.Unreachable, _ = s.peers.Unreachable()
	for i, m := range page.Mappings {
		message := m.Message()
		size += proto.Size(message)
		if i > 0 && size > pageBytes {
			page.Next, page.More = page.Cursors[i-1], true
			break
		}
		response.Mappings = append(response.Mappings, message)
	}
	if page.More {
		response.NextPageToken = cursorToken(request, page.Next)
	}
	return response, nil
}

// parseListMappings returns which mappings are asked for, and behind which place.
func parseListMappings(request *namewardv1.ListMappingsRequest) (ingest.Filter, ingest.Cursor, error) {
	filter, filterErr := ingest.ParseFilter(request.GetFilter())
	after, tokenErr := parseCursor(request)
	return filter, after, errors.Join(filterErr, tokenErr)
}

// ofPolicy makes a filter select the mappings by which a policy's rules match, "" for no policy.
func (s *ObservationService) ofPolicy(filter *ingest.Filter, name string) error {
	if name == "" {
		return nil
	}
	p, err := policyOf(s.store, "filter.policy", name)
	if err != nil {
		return err
	}
	snapshot, _, _ := s.store.Snapshot()
	rules := rulesOf(snapshot, p)
	filter.Covered = func(name domain.Name) bool { return rules.Covers(p.Rules, name) }
	return nil
}

// WatchMappings streams mappings: what lives, then what changes.
func (s *ObservationService) WatchMappings(request *namewardv1.WatchMappingsRequest, stream grpc.ServerStreamingServer[namewardv1.WatchMappingsResponse]) error {
	filter, err := ingest.ParseFilter(request.GetFilter())
	if err := errors.Join(err, s.ofPolicy(&filter, request.GetFilter().GetPolicy())); err != nil {
		return toStatus(s.log, err)
	}
	ctx, release := untilStopping(stream.Context(), s.stopping)
	defer release()
	return toStatus(s.log, s.watch(ctx, filter, stream.Send))
}

func (s *ObservationService) watch(ctx context.Context, filter ingest.Filter, send func(*namewardv1.WatchMappingsResponse) error) error {
	unreachable, _ := s.peers.Unreachable()
	ctx, release := whileReached(ctx, s.peers, unreachable)
	defer release()
	watch := s.mappings.Watch(filter, time.Now())
	defer watch.Close()
	for _, m := range watch.Live {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := send(&namewardv1.WatchMappingsResponse{Change: namewardv1.WatchMappingsResponse_PUT, Mapping: m.Message()}); err != nil {
			return err
		}
	}
	watch.Live = nil // not to be held as long as the stream lives
	if err := send(&namewardv1.WatchMappingsResponse{Synced: true, Unreachable: unreachable}); err != nil {
		return err
	}
	for {
		change, err := watch.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, ingest.ErrSlow):
			return fmt.Errorf("%w: %w", errTooSlow, err)
		case err != nil:
			return err
		}
		response := &namewardv1.WatchMappingsResponse{Change: namewardv1.WatchMappingsResponse_PUT, Mapping: change.Mapping.Message()}
		if change.Ended {
			response.Change = namewardv1.WatchMappingsResponse_DELETE
		}
		if err := send(response); err != nil {
			return err
		}
	}
}
