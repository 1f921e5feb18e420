package store

import (
	"fmt"

	"github.com/nameward/nameward/api/node"
)

// UpdateNodeStatuses does for many nodes at once, in one transaction, what UpdateNodeStatus does for one; a node's
// changes are made in order. It returns the nodes that there are not.
func (s *Store) UpdateNodeStatuses(changes map[node.ID][]func(*NodeStatus)) (unknown []node.ID, err error) {
	txn := s.db.Txn(true)
	defer txn.Abort()
	for id, list := range changes {
		current, err := findNode(txn, id)
		if err != nil {
			return nil, err
		}
		if current == nil {
			unknown = append(unknown, id)
			continue
		}
		changed := *current
		for _, change := range list {
			change(&changed.Status)
		}
		if err := txn.Insert(tableNodes, &changed); err != nil {
			return nil, fmt.Errorf("update %s: %w", id.ResourceName(), err)
		}
	}
	txn.Commit()
	return unknown, nil
}
