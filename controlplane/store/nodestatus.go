package store

import (
	"iter"

	"github.com/nameward/nameward/api/node"
)

// UpdateNodeStatuses does for many nodes at once what UpdateNodeStatus does for one; a node's changes are made in order.
// It returns the nodes that there are not.
func (s *Store) UpdateNodeStatuses(changes iter.Seq2[node.ID, []func(*NodeStatus)]) (unknown []node.ID, err error) {
	s.nodes.mu.Lock()
	defer s.nodes.mu.Unlock()
	defer s.nodes.tell()
	txn := s.db.Txn(false)
	for id, list := range changes {
		place, err := s.nodes.find(txn, id)
		if err != nil {
			return nil, err
		}
		if place == nil {
			unknown = append(unknown, id)
			continue
		}
		changed := *place.newest.Load()
		for _, change := range list {
			change(&changed.Status)
		}
		place.newest.Store(&changed)
	}
	return unknown, nil
}
