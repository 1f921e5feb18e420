package adminserver

import (
	"context"
	"time"

	"google.golang.org/grpc"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/controlplane/store"
)

// nodesInterval is how long changes of nodes gather before a watch goes through them: each status report is one, and
// a large fleet sends thousands a second.
const nodesInterval = 250 * time.Millisecond

// WatchNodes streams nodes: what there is, then what changes.
func (s *NodeService) WatchNodes(request *namewardv1.WatchNodesRequest, stream grpc.ServerStreamingServer[namewardv1.WatchNodesResponse]) error {
	keep, err := nodeFilter(s.store, request.GetFilter())
	if err != nil {
		return toStatus(s.log, err)
	}
	ctx, release := untilStopping(stream.Context(), s.stopping)
	defer release()
	unreachable, _ := s.peers.Unreachable()
	ctx, unwatch := whileReached(ctx, s.peers, unreachable)
	defer unwatch()
	s.wanted.AwaitWanted(ctx)
	return toStatus(s.log, s.watch(ctx, nodeWatch{unreachable: unreachable, keep: keep, told: map[node.ID]*store.Node{}, send: stream.Send}))
}

func (s *NodeService) watch(ctx context.Context, w nodeWatch) error {
	for synced := false; ; synced = true {
		nodes, changed := s.store.Nodes()
		if err := w.tell(ctx, nodes); err != nil {
			return err
		}
		if !synced {
			if err := w.send(&namewardv1.WatchNodesResponse{Synced: true, Unreachable: w.unreachable}); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		}
		gathering := time.NewTimer(nodesInterval)
		select {
		case <-ctx.Done():
		case <-gathering.C:
		}
		gathering.Stop()
	}
}

// nodeWatch is what a client has been told. Nothing is queued for it: it gets the difference to what is now.
type nodeWatch struct {
	keep func(*store.Node) bool // nil for all
	// unreachable are the servers of whose nodes not all is known.
	unreachable []string
	told        map[node.ID]*store.Node
	send        func(*namewardv1.WatchNodesResponse) error
}

// tell sends what of the nodes the client does not know.
func (w nodeWatch) tell(ctx context.Context, nodes []*store.Node) error {
	there := make(map[node.ID]bool, len(nodes))
	for _, n := range nodes {
		if w.keep != nil && !w.keep(n) {
			continue
		}
		there[n.ID] = true
		if w.told[n.ID] == n { // nodes are replaced, never edited
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		w.told[n.ID] = n
		if err := w.send(&namewardv1.WatchNodesResponse{Change: namewardv1.WatchNodesResponse_PUT, Node: n.Message()}); err != nil {
			return err
		}
	}
	for id, n := range w.told {
		if there[id] {
			continue
		}
		delete(w.told, id)
		gone := &namewardv1.Node{Name: n.ID.ResourceName()}
		if err := w.send(&namewardv1.WatchNodesResponse{Change: namewardv1.WatchNodesResponse_DELETE, Node: gone}); err != nil {
			return err
		}
	}
	return nil
}
