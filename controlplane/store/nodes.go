package store

import (
	"context"
	"time"

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
	// Status is in memory only: the zero value after a start of the server.
	Status NodeStatus
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
}

// Message returns the node as clients read it.
func (n *Node) Message() *namewardv1.Node { panic("written next") }

// Node returns a node, or ErrNotFound.
func (s *Store) Node(id node.ID) (*Node, error) { panic("written next") }

// ListNodes returns up to limit nodes whose ids come after the given one, in order of the ids, and whether
// there are more.
func (s *Store) ListNodes(after string, limit int) (nodes []*Node, more bool, err error) {
	panic("written next")
}

// Nodes returns every node in order of the ids, and a channel that closes when any of them changes, its
// status included.
func (s *Store) Nodes() (nodes []*Node, changed <-chan struct{}) { panic("written next") }

// RegisterNode keeps what a node said of itself; its status stays what it was. When that is what the store
// holds already, nothing is written, so that a fleet that comes back costs no disk.
func (s *Store) RegisterNode(ctx context.Context, n Node) error { panic("written next") }

// UpdateNodeStatus lets change edit a copy of the node's status and puts it in place; ErrNotFound when the
// node never registered. Nothing is written to disk and Revision does not move. A map must be replaced,
// never edited: readers hold it. change must not call the store.
func (s *Store) UpdateNodeStatus(id node.ID, change func(*NodeStatus)) error { panic("written next") }

func readNode(record storage.Record) (*Node, error) { panic("written next") }
