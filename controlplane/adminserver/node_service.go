package adminserver

import (
	"context"
	"errors"
	"log/slog"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/api/token"
	"github.com/nameward/nameward/controlplane/ingest"
	"github.com/nameward/nameward/controlplane/store"
)

// NodeService serves nameward.v1.NodeService. Requests must have passed the Validator.
type NodeService struct {
	namewardv1.UnimplementedNodeServiceServer

	store    *store.Store
	mappings *ingest.Table
	flows    *ingest.Flows
	wanted   Wanted
	peers    Peers
	log      *slog.Logger
	stopping <-chan struct{}
}

// Wanted knows when the status of every node says what the policies of this moment want of it.
type Wanted interface {
	// AwaitWanted waits for that moment, within limits.
	AwaitWanted(ctx context.Context)
}

// NewNodeService returns the service. When stopping closes, its streams end with UNAVAILABLE.
func NewNodeService(s *store.Store, mappings *ingest.Table, flows *ingest.Flows, wanted Wanted, log *slog.Logger, stopping <-chan struct{}) *NodeService {
	return &NodeService{store: s, mappings: mappings, flows: flows, wanted: wanted, peers: alone{}, log: log, stopping: stopping}
}

// Among has the service say when what it knows of other servers' nodes may be old.
func (s *NodeService) Among(peers Peers) *NodeService {
	s.peers = peers
	return s
}

// GetNode reads a node.
func (s *NodeService) GetNode(ctx context.Context, request *namewardv1.GetNodeRequest) (*namewardv1.Node, error) {
	s.wanted.AwaitWanted(ctx)
	n, err := s.find("name", request.GetName())
	if err != nil {
		return nil, toStatus(s.log, err)
	}
	return n.Message(), nil
}

// ListNodes lists nodes in order of their names.
func (s *NodeService) ListNodes(ctx context.Context, request *namewardv1.ListNodesRequest) (*namewardv1.ListNodesResponse, error) {
	s.wanted.AwaitWanted(ctx)
	after, err := parsePageToken(request)
	keep, filterErr := nodeFilter(s.store, request.GetFilter())
	if err := errors.Join(err, filterErr); err != nil {
		return nil, toStatus(s.log, err)
	}
	nodes, more, err := s.store.ListNodes(after, pageSize(request.GetPageSize()), keep)
	if err != nil {
		return nil, toStatus(s.log, err)
	}
	response, size := &namewardv1.ListNodesResponse{}, 0
	response.Unreachable, _ = s.peers.Unreachable()
	for i, n := range nodes {
		message := n.Message()
		size += proto.Size(message)
		if i > 0 && size > pageBytes {
			more = true
			break
		}
		response.Nodes = append(response.Nodes, message)
		after = n.ID.String()
	}
	if more {
		response.NextPageToken = token.Page(request, after)
	}
	return response, nil
}

// DeleteNode forgets a node.
func (s *NodeService) DeleteNode(ctx context.Context, request *namewardv1.DeleteNodeRequest) (*emptypb.Empty, error) {
	n, err := s.find("name", request.GetName())
	if err == nil && request.GetValidateOnly() {
		err = n.CheckDeletion()
	} else if err == nil {
		err = s.store.DeleteNode(ctx, n.ID, func() {
			s.mappings.Forget(n.ID)
			s.flows.Forget(n.ID)
		})
	}
	if errors.Is(err, store.ErrNotFound) && request.GetAllowMissing() {
		err = nil
	}
	if err != nil {
		return nil, toStatus(s.log, err)
	}
	return &emptypb.Empty{}, nil
}

// find returns the node of a resource name that the request has in field.
func (s *NodeService) find(field, name string) (*store.Node, error) {
	id, err := node.ParseResourceName(name)
	if err != nil {
		return nil, &ruleset.FieldError{Field: field, Value: name, Reason: err.Error()}
	}
	return s.store.Node(id) //nolint:wrapcheck // names the resource
}
