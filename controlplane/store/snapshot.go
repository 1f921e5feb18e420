package store

import (
	"fmt"

	"github.com/hashicorp/go-memdb"

	"github.com/nameward/nameward/controlplane/policy"
)

// RulesRevision returns the revision at which a policy or a domain set last changed.
func (s *Store) RulesRevision() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.rulesRevision
}

// Snapshot returns every policy and domain set, the revision at which any of them last changed, and a
// channel that closes when one changes. The revision stays the same over a restart and is not moved by
// changes of other objects.
func (s *Store) Snapshot() (snapshot policy.Snapshot, revision uint64, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current.take(s.db.Txn(false)), s.rulesRevision, s.rulesChanged
}

// Size returns the room that all policies and domain sets together would take in one rule set.
func (s *Store) Size() policy.Size {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.current.size
}

// all returns the objects of a table in order of an index.
func all[T any](txn *memdb.Txn, table, index string) (list []T) {
	objects, err := txn.Get(table, index)
	if err != nil {
		panic(fmt.Sprintf("walk %s: %v", table, err)) // the schema lacks the index
	}
	for object := objects.Next(); object != nil; object = objects.Next() {
		list = append(list, object.(T)) // the index refuses other types
	}
	return list
}
