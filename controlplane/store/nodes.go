package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/controlplane/storage"
)

const nodeCollection = "nodes/"

// Node is a node that has connected at least once. It is immutable, its maps too.
type Node struct {
	ID node.ID
	// Labels, versions and backend are what the node said of itself, and are durable.
	Labels          map[string]string
	AgentVersion    string
	Kernel          string
	IptablesBackend string
	// TrustedResolvers are those of the node, as it said.
	TrustedResolvers []netip.AddrPort
	// Status is in memory only: the zero value after a start of the server.
	Status NodeStatus

	// revision is that of the commit which wrote the durable part.
	revision uint64
}

// NodeStatus is how a node does.
type NodeStatus struct {
	Connected   bool
	LastContact time.Time
	// WantedRevision is the revision at which the node's rule set last changed.
	WantedRevision uint64
	WantedTime     time.Time
	// AppliedRevision and RuleSetID are what the node has in force.
	AppliedRevision uint64
	AppliedTime     time.Time
	RuleSetID       ruleset.ID
	// LastError says why the wanted revision could not be applied; empty when it could.
	LastError string
	Counters  map[string]uint64
	// Degraded lists the faults that persist on the node, each with its remedy.
	Degraded []string
	// CertificateExpiry is when the certificate ends that the node connects with; zero for none.
	CertificateExpiry time.Time
	// PolicyServers are those that the node itself may always reach.
	PolicyServers []netip.AddrPort
	// Addresses are the node's own; with MoreAddresses it has others that it did not report.
	Addresses     []netip.Prefix
	MoreAddresses bool
	// Claim says whose agent speaks for the node, or did last, and where.
	Claim Claim
}

// Message returns the node as clients read it. Its maps are the node's: not to be changed.
func (n *Node) Message() *namewardv1.Node {
	message := n.durable()
	status := message.GetStatus()
	status.Connected = n.Status.Connected
	status.LastContactTime = writeTime(n.Status.LastContact)
	status.WantedRevision = n.Status.WantedRevision
	status.WantedTime = writeTime(n.Status.WantedTime)
	status.AppliedRevision = n.Status.AppliedRevision
	status.AppliedTime = writeTime(n.Status.AppliedTime)
	if !n.Status.RuleSetID.IsZero() {
		status.RuleSetId = n.Status.RuleSetID.String()
	}
	status.LastError = n.Status.LastError
	status.Counters = n.Status.Counters
	status.Degraded = n.Status.Degraded
	status.CertificateExpireTime = writeTime(n.Status.CertificateExpiry)
	status.PolicyServers = texts(n.Status.PolicyServers)
	for _, prefix := range n.Status.Addresses {
		text := prefix.String()
		if prefix.IsSingleIP() {
			text = prefix.Addr().String()
		}
		status.Addresses = append(status.Addresses, text)
	}
	status.MoreAddresses = n.Status.MoreAddresses
	status.Server = n.Status.Claim.Address
	status.State = n.State()
	return message
}

// State says in a word how the node does.
func (n *Node) State() namewardv1.NodeStatus_State {
	switch status := &n.Status; {
	case status.LastError != "":
		return namewardv1.NodeStatus_FAILED
	case !status.Connected:
		return namewardv1.NodeStatus_DISCONNECTED
	case status.AppliedRevision < status.WantedRevision:
		return namewardv1.NodeStatus_BEHIND
	case len(status.Degraded) > 0:
		return namewardv1.NodeStatus_DEGRADED
	default:
		return namewardv1.NodeStatus_CURRENT
	}
}

// durable returns what of the node is kept on disk.
func (n *Node) durable() *namewardv1.Node {
	return &namewardv1.Node{
		Name:   n.ID.ResourceName(),
		Labels: n.Labels,
		Status: &namewardv1.NodeStatus{
			AgentVersion: n.AgentVersion, Kernel: n.Kernel, IptablesBackend: n.IptablesBackend, TrustedResolvers: texts(n.TrustedResolvers),
		},
	}
}

func texts(endpoints []netip.AddrPort) []string {
	var list []string
	for _, endpoint := range endpoints {
		list = append(list, endpoint.String())
	}
	return list
}

// Node returns a node, or ErrNotFound.
func (s *Store) Node(id node.ID) (*Node, error) {
	n, err := findNode(s.db.Txn(false), id)
	if err != nil {
		return nil, err
	}
	if n == nil {
		return nil, &ResourceError{Name: id.ResourceName(), Err: ErrNotFound}
	}
	return n, nil
}

// ListNodes returns up to limit nodes whose ids come after the given one and that keep, if it is not nil, accepts,
// in order of the ids, and whether there are more.
func (s *Store) ListNodes(after string, limit int, keep func(*Node) bool) (nodes []*Node, more bool, err error) {
	_, more, err = listAfter(s.db.Txn(false), tableNodes, after, limit, func(place *nodePlace) bool {
		n := place.newest.Load()
		if keep != nil && !keep(n) {
			return false
		}
		nodes = append(nodes, n)
		return true
	})
	return nodes[:min(len(nodes), limit)], more, err
}

// Nodes returns every node in order of the ids, and a channel that closes when any of them changes, its
// status included.
func (s *Store) Nodes() (nodes []*Node, changed <-chan struct{}) {
	changed = s.nodes.next() // before they are read
	for _, place := range all[*nodePlace](s.db.Txn(false), tableNodes, indexID) {
		nodes = append(nodes, place.newest.Load())
	}
	return nodes, changed
}

// RegisterNode keeps what a node said of itself; its status stays what it was. When that is what the store
// holds already, nothing is written, so that a fleet that comes back costs no disk.
func (s *Store) RegisterNode(ctx context.Context, n Node) error {
	n.Labels = maps.Clone(n.Labels)
	name := n.ID.ResourceName()
	value, err := proto.Marshal(n.durable())
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	for {
		current, err := findNode(s.db.Txn(false), n.ID)
		if err != nil {
			return err
		}
		expected := storage.ExpectAbsent()
		if current != nil {
			if proto.Equal(n.durable(), current.durable()) {
				return nil
			}
			expected = storage.ExpectRevision(current.revision)
		}
		err = s.backend.Commit(ctx, []storage.Operation{{Key: name, Value: value, Expected: expected}}, func(revision uint64) {
			s.applyNode(n, revision)
		})
		switch {
		case errors.Is(err, storage.ErrConflict):
			continue
		case err != nil:
			return fmt.Errorf("commit %s: %w", name, err)
		default:
			return nil
		}
	}
}

// applyNode makes a registration visible.
func (s *Store) applyNode(n Node, revision uint64) {
	n.revision = revision
	if err := s.placeNode(n); err != nil {
		panic(fmt.Sprintf("read model refused revision %d: %v", revision, err)) // the schema does not fit
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revision = revision
}

// placeNode puts a node in its place, with the status of the one that is there.
func (s *Store) placeNode(n Node) error {
	s.nodes.mu.Lock()
	defer s.nodes.mu.Unlock()
	txn := s.db.Txn(true)
	defer txn.Abort()
	place, err := findPlace(txn, n.ID)
	if err != nil {
		return err
	}
	n.Status = NodeStatus{}
	if place != nil {
		n.Status = place.newest.Load().Status
		place.newest.Store(&n)
	} else if err := txn.Insert(tableNodes, newNodePlace(&n)); err != nil {
		return fmt.Errorf("insert %s: %w", n.ID.ResourceName(), err)
	}
	txn.Commit()
	s.nodes.tell()
	return nil
}

// UpdateNodeStatus lets change edit a copy of the node's status and puts it in place; ErrNotFound when the
// node never registered. Nothing is written to disk and Revision does not move. A map must be replaced,
// never edited: readers hold it. change must not call the store.
func (s *Store) UpdateNodeStatus(id node.ID, change func(*NodeStatus)) error {
	unknown, err := s.UpdateNodeStatuses(maps.All(map[node.ID][]func(*NodeStatus){id: {change}}))
	if len(unknown) > 0 {
		return &ResourceError{Name: id.ResourceName(), Err: ErrNotFound}
	}
	return err
}

func readNode(record storage.Record) (*Node, error) {
	message := &namewardv1.Node{}
	if err := proto.Unmarshal(record.Value, message); err != nil {
		return nil, fmt.Errorf("%w: %q: %w", storage.ErrCorrupt, record.Key, err)
	}
	id, err := node.ParseResourceName(message.GetName())
	if err != nil {
		return nil, fmt.Errorf("%w: %q: %w", storage.ErrCorrupt, record.Key, err)
	}
	if message.GetName() != record.Key {
		return nil, fmt.Errorf("%w: %q: holds the node %q", storage.ErrCorrupt, record.Key, message.GetName())
	}
	var resolvers []netip.AddrPort
	for _, text := range message.GetStatus().GetTrustedResolvers() {
		resolver, err := netip.ParseAddrPort(text)
		if err != nil {
			return nil, fmt.Errorf("%w: %q: trusted resolver %q", storage.ErrCorrupt, record.Key, text)
		}
		resolvers = append(resolvers, resolver)
	}
	return &Node{
		TrustedResolvers: resolvers,

		ID:              id,
		Labels:          message.GetLabels(),
		AgentVersion:    message.GetStatus().GetAgentVersion(),
		Kernel:          message.GetStatus().GetKernel(),
		IptablesBackend: message.GetStatus().GetIptablesBackend(),
		revision:        record.Revision,
	}, nil
}

func writeTime(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
