package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/controlplane/storage"
)

// DeleteNode forgets a node; ErrNotFound when there is none, ErrConnected while its agent is connected. gone is called
// when that is durable, before the node can be registered again. An agent that connects at the same moment finds its
// node unknown, which ends its stream, and registers with the next.
func (s *Store) DeleteNode(ctx context.Context, id node.ID, gone func()) error {
	for {
		current, err := s.Node(id)
		if err != nil {
			return err
		}
		if err := current.CheckDeletion(); err != nil {
			return err
		}
		operation := storage.Operation{Key: id.ResourceName(), Expected: storage.ExpectRevision(current.revision)}
		change := Change{Name: id.ResourceName(), Before: State{Node: current}}
		err = s.commit(ctx, change, []storage.Operation{operation}, func(revision uint64) {
			s.dropNode(id, revision)
			gone()
		})
		switch {
		case errors.Is(err, storage.ErrConflict):
			continue
		case err != nil:
			return fmt.Errorf("commit deletion of %s: %w", id.ResourceName(), err)
		default:
			return nil
		}
	}
}

// CheckDeletion returns ErrConnected for a node that cannot be forgotten now.
func (n *Node) CheckDeletion() error {
	if n.Status.Connected {
		return &ResourceError{Name: n.ID.ResourceName(), Err: ErrConnected}
	}
	return nil
}

// dropNode makes a deletion visible.
func (s *Store) dropNode(id node.ID, revision uint64) {
	if err := s.unplaceNode(id); err != nil {
		panic(fmt.Sprintf("read model refused revision %d: %v", revision, err)) // the schema does not fit
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revision = revision
}

func (s *Store) unplaceNode(id node.ID) error {
	s.nodes.mu.Lock()
	defer s.nodes.mu.Unlock()
	txn := s.db.Txn(true)
	defer txn.Abort()
	place, err := findPlace(txn, id)
	if err != nil || place == nil {
		return err
	}
	if err := txn.Delete(tableNodes, place); err != nil {
		return fmt.Errorf("delete %s: %w", id.ResourceName(), err)
	}
	txn.Commit()
	delete(s.nodes.known, id)
	s.nodes.tell()
	return nil
}
