package store

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-memdb"

	"github.com/nameward/nameward/api/node"
)

// nodePlace is where a node is found in the read model. What a node says changes many times a second on a large fleet:
// then the node is replaced in its place, and the table, in which every change costs a path through a tree, stays as it
// is. Store.nodes guards replacements.
type nodePlace struct {
	id     node.ID
	newest atomic.Pointer[Node]
}

func newNodePlace(n *Node) *nodePlace {
	place := &nodePlace{id: n.ID}
	place.newest.Store(n)
	return place
}

// nodeChanges keeps changes of nodes in order, and tells of them. It is taken after Store.mu, and before the table is
// written.
type nodeChanges struct {
	mu      sync.Mutex    // is held while nodes are replaced; guards all below
	changed chan struct{} // closed when any node is replaced, comes or goes
	// known are places that were looked up before: what nodes say changes far more often than which there are, and in the
	// table each look-up goes down a tree.
	known map[node.ID]*nodePlace
}

// find does what findPlace does. It is called under mu.
func (c *nodeChanges) find(txn *memdb.Txn, id node.ID) (*nodePlace, error) {
	if place := c.known[id]; place != nil {
		return place, nil
	}
	place, err := findPlace(txn, id)
	if place != nil {
		c.known[id] = place
	}
	return place, err
}

// tell is called under mu.
func (c *nodeChanges) tell() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// next returns a channel that closes when a node changes.
func (c *nodeChanges) next() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// findPlace returns nil when there is no such node.
func findPlace(txn *memdb.Txn, id node.ID) (*nodePlace, error) {
	object, err := txn.First(tableNodes, indexID, id.String())
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", id.ResourceName(), err)
	}
	place, _ := object.(*nodePlace)
	return place, nil
}

// findNode returns nil when there is no such node.
func findNode(txn *memdb.Txn, id node.ID) (*Node, error) {
	place, err := findPlace(txn, id)
	if place == nil {
		return nil, err
	}
	return place.newest.Load(), nil
}
