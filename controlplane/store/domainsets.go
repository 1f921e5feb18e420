package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/hashicorp/go-memdb"
	"google.golang.org/protobuf/proto"

	"github.com/nameward/nameward/controlplane/policy"
	"github.com/nameward/nameward/controlplane/storage"
)

// DomainSet returns the domain set of a resource name, or ErrNotFound.
func (s *Store) DomainSet(name string) (*policy.DomainSet, error) {
	set, err := findDomainSet(s.db.Txn(false), name)
	if err != nil {
		return nil, err
	}
	if set == nil {
		return nil, &ResourceError{Name: name, Err: ErrNotFound}
	}
	return set, nil
}

// findDomainSet returns nil when there is no such set.
func findDomainSet(txn *memdb.Txn, name string) (*policy.DomainSet, error) {
	object, err := txn.First(tableDomainSets, indexID, name)
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", name, err)
	}
	set, _ := object.(*policy.DomainSet)
	return set, nil
}

// ListDomainSets returns up to limit sets whose names come after the given one, in order of the names, and
// whether there are more.
func (s *Store) ListDomainSets(after string, limit int) (sets []*policy.DomainSet, more bool, err error) {
	return listAfter[*policy.DomainSet](s.db.Txn(false), tableDomainSets, after, limit, nil)
}

// PutDomainSet makes or replaces a domain set and returns it as stored, with its new etag and times. It
// returns when the set is durable and visible to readers. Where it would change nothing, it writes nothing
// and returns the set that there is. Etag and times of the set itself are ignored.
func (s *Store) PutDomainSet(ctx context.Context, set *policy.DomainSet, guard Guard) (*policy.DomainSet, error) {
	for {
		current, err := findDomainSet(s.db.Txn(false), set.Name)
		if err != nil {
			return nil, err
		}
		if err := guard.Check(set.Name, etagOfSet(current)); err != nil {
			return nil, err
		}
		if current != nil && current.Description == set.Description && current.Same(set.DomainSet) {
			return current, nil
		}
		stored, err := s.writeDomainSet(ctx, set, current)
		// Somebody was faster. The guard is judged anew by what that left; each round, somebody gets ahead.
		if errors.Is(err, storage.ErrConflict) {
			continue
		}
		return stored, err
	}
}

// etagOfSet returns "" for no set.
func etagOfSet(set *policy.DomainSet) string {
	if set == nil {
		return ""
	}
	return set.Etag
}

// writeDomainSet commits wanted in place of current.
func (s *Store) writeDomainSet(ctx context.Context, wanted, current *policy.DomainSet) (*policy.DomainSet, error) {
	stored := *wanted
	stored.UpdateTime, stored.Etag = now(), ""
	stored.CreateTime = stored.UpdateTime
	expected := storage.ExpectAbsent()
	if current != nil {
		stored.CreateTime = current.CreateTime
		expected = storage.ExpectRevision(current.Revision)
	}
	value, err := proto.Marshal(stored.Header())
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", stored.Name, err)
	}
	content := sha256.Sum256(value)
	operations := []storage.Operation{{Key: stored.Name, Value: value, Expected: expected}}
	operations = append(operations, layOut(&stored, current)...)
	change := Change{Name: stored.Name, Before: State{DomainSet: current}, After: State{DomainSet: &stored}, Content: content}
	err = s.commit(ctx, change, operations, func(revision uint64) {
		stored.Revision, stored.Etag = revision, etag(revision, content)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.change(revision, func(txn *memdb.Txn) error { return txn.Insert(tableDomainSets, &stored) })
		s.current.replaceDomainSet(current, &stored)
	})
	if err != nil {
		return nil, fmt.Errorf("commit %s: %w", stored.Name, err)
	}
	return &stored, nil
}

// DeleteDomainSet deletes a set; ErrNotFound when there is none, a *PreconditionError when policies name it.
// It returns when that is durable and visible to readers.
func (s *Store) DeleteDomainSet(ctx context.Context, name string, guard Guard) error {
	guard.MustExist = true
	s.references.Lock()
	defer s.references.Unlock()
	for {
		// Before it is looked: another server may write a policy that names the set, behind this revision.
		policies := s.policiesRevision()
		current, err := findDomainSet(s.db.Txn(false), name)
		if err != nil {
			return err
		}
		if err := guard.Check(name, etagOfSet(current)); err != nil {
			return err
		}
		if err := s.CheckUnreferenced(name); err != nil {
			return err
		}
		operations := []storage.Operation{
			{Key: name, Expected: storage.ExpectRevision(current.Revision)},
			storage.Unchanged(collectionOf(policy.Collection), policies),
		}
		for i := range current.Buckets {
			operations = append(operations, storage.Operation{Key: bucketKey(name, i)})
		}
		change := Change{Name: name, Before: State{DomainSet: current}}
		err = s.commit(ctx, change, operations, func(revision uint64) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.change(revision, func(txn *memdb.Txn) error { return txn.Delete(tableDomainSets, current) })
			s.current.replaceDomainSet(current, nil)
		})
		switch {
		case errors.Is(err, storage.ErrConflict):
			continue
		case err != nil:
			return fmt.Errorf("commit deletion of %s: %w", name, err)
		default:
			return nil
		}
	}
}

// policiesRevision returns the revision at which a policy last changed.
func (s *Store) policiesRevision() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.policyRevision
}
