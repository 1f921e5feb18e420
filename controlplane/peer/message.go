package peer

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	peerv1 "github.com/nameward/nameward/api/nameward/peer/v1"
	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/controlplane/ingest"
	"github.com/nameward/nameward/controlplane/store"
)

// writeNode returns a node as servers tell each other of it.
func writeNode(n *store.Node) *peerv1.RelayedNode {
	claim := &n.Status.Claim
	message := &peerv1.RelayedNode{Node: n.Message(), InstanceId: claim.Instance, Claim: claim.Number, Agent: claim.Agent}
	// The server is the one that speaks; of nodes that are nobody's it is the one that was.
	message.Node.Labels = nil
	for _, at := range claim.Takeovers {
		message.Takeovers = append(message.Takeovers, at.UnixNano())
	}
	message.ServerId = claim.Server
	return message
}

func readNode(message *peerv1.RelayedNode) (node.ID, store.NodeStatus, error) {
	id, err := node.ParseResourceName(message.GetNode().GetName())
	if err != nil {
		return id, store.NodeStatus{}, fmt.Errorf("read node: %w", err)
	}
	status, err := store.ReadStatus(message.GetNode().GetStatus())
	if err != nil {
		return id, status, fmt.Errorf("read status of %s: %w", message.GetNode().GetName(), err)
	}
	status.Claim = store.Claim{
		Server: message.GetServerId(), Address: message.GetNode().GetStatus().GetServer(),
		Instance: message.GetInstanceId(), Agent: message.GetAgent(), Number: message.GetClaim(),
	}
	for _, at := range message.GetTakeovers() {
		status.Claim.Takeovers = append(status.Claim.Takeovers, time.Unix(0, at))
	}
	return id, status, nil
}

func writeFlowEvent(e *ingest.FlowEvent) *peerv1.RelayedFlowEvent {
	return &peerv1.RelayedFlowEvent{FlowEvent: e.ToProto(e.Node), BegunTime: timestamppb.New(e.Began), Before: e.Before}
}
