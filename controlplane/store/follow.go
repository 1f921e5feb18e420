package store

import (
	"context"
	"crypto/sha256"
	"fmt"

	"github.com/hashicorp/go-memdb"
	"google.golang.org/protobuf/proto"

	"github.com/nameward/nameward/api/domain"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/controlplane/policy"
	"github.com/nameward/nameward/controlplane/storage"
)

// Follow takes in what other servers commit, until ctx ends. changed is told of their nodes; it must not commit.
func (s *Store) Follow(ctx context.Context, shared storage.Shared, changed NodesChanged) error {
	s.nodesChanged = changed
	return shared.Follow(ctx, follower{s}) //nolint:wrapcheck // says what it did
}

// follower makes what other servers commit visible.
type follower struct{ *Store }

// Apply takes in one commit.
func (s follower) Apply(change storage.Change) error {
	sets := map[string][]storage.Record{}
	for _, record := range change.Records {
		switch collectionOf(record.Key) {
		case collectionOf(policy.Collection):
			if err := s.applyPolicy(change.Revision, record); err != nil {
				return err
			}
		case collectionOf(policy.DomainSetCollection):
			name, _, ok := parseBucketKey(record.Key)
			if !ok {
				name = record.Key
			}
			sets[name] = append(sets[name], record)
		case collectionOf(nodeCollection):
			if err := s.applyForeignNode(change.Revision, record); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%w: %q: its collection is not known to this version", storage.ErrCorrupt, record.Key)
		}
	}
	for name, records := range sets {
		if err := s.applyDomainSet(change.Revision, name, records); err != nil {
			return err
		}
	}
	return nil
}

func (s follower) applyPolicy(revision uint64, record storage.Record) error {
	if record.Value == nil {
		current, err := s.lookUp(record.Key)
		if err != nil {
			return err
		}
		if current == nil {
			return fmt.Errorf("%w: %q: is deleted and was not there", storage.ErrCorrupt, record.Key)
		}
		s.apply(revision, func(txn *memdb.Txn) error { return txn.Delete(tablePolicies, current) }, nil, record.Key)
		return nil
	}
	p, err := readPolicy(record)
	if err != nil {
		return err
	}
	s.apply(revision, func(txn *memdb.Txn) error { return txn.Insert(tablePolicies, p) }, p, "")
	return nil
}

func (s follower) applyForeignNode(revision uint64, record storage.Record) error {
	if record.Value == nil {
		id, err := node.ParseResourceName(record.Key)
		if err != nil {
			return fmt.Errorf("%w: %q: %w", storage.ErrCorrupt, record.Key, err)
		}
		s.dropNode(id, revision)
		s.nodesChanged(id, nil)
		return nil
	}
	n, err := readNode(record)
	if err != nil {
		return err
	}
	s.applyNode(*n, revision)
	s.nodesChanged(n.ID, n)
	return nil
}

// applyDomainSet takes in a commit that wrote a domain set: its header, and the buckets that are other ones.
func (s follower) applyDomainSet(revision uint64, name string, records []storage.Record) error {
	current, err := findDomainSet(s.db.Txn(false), name)
	if err != nil {
		return err
	}
	var header *storage.Record
	change := bucketsChange{put: map[int][]domain.Pattern{}}
	for _, record := range records {
		if record.Key == name {
			header = &record
		} else if err := change.add(record); err != nil {
			return err
		}
	}
	switch {
	case header == nil:
		return fmt.Errorf("%w: %q: buckets changed, and its own record did not", storage.ErrCorrupt, name)
	case header.Value == nil && current == nil:
		return fmt.Errorf("%w: %q: is deleted and was not there", storage.ErrCorrupt, name)
	case header.Value == nil:
		s.replaceSet(revision, current, nil)
		return nil
	}
	next, err := change.of(current, *header)
	if err != nil {
		return err
	}
	s.replaceSet(revision, current, next)
	return nil
}

func (s follower) replaceSet(revision uint64, before, after *policy.DomainSet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.change(revision, func(txn *memdb.Txn) error {
		if after == nil {
			return txn.Delete(tableDomainSets, before)
		}
		return txn.Insert(tableDomainSets, after)
	})
	s.current.replaceDomainSet(before, after)
}

// bucketsChange is what a commit wrote of the buckets of a set.
type bucketsChange struct {
	put     map[int][]domain.Pattern
	deleted int
	highest int
}

func (c *bucketsChange) add(record storage.Record) error {
	_, bucket, ok := parseBucketKey(record.Key)
	if !ok {
		return fmt.Errorf("%w: %q: is no bucket", storage.ErrCorrupt, record.Key)
	}
	if record.Value == nil {
		c.deleted++
		return nil
	}
	c.highest = max(c.highest, bucket)
	domains, err := readBucket(record)
	c.put[bucket] = domains
	return err
}

// of returns the set that the change makes of current, nil for none.
func (c *bucketsChange) of(current *policy.DomainSet, header storage.Record) (*policy.DomainSet, error) {
	if current == nil || c.deleted > 0 || c.highest >= current.Buckets {
		// It was laid out anew: all of it is here.
		whole := &loadedSet{header: &header, buckets: c.put}
		return whole.read(header.Key)
	}
	edits := map[domain.Pattern]bool{}
	for _, pattern := range current.Domains {
		if _, written := c.put[bucketOf(pattern.String(), current.Buckets)]; written {
			edits[pattern] = false
		}
	}
	for bucket, domains := range c.put {
		for _, pattern := range domains {
			if bucketOf(pattern.String(), current.Buckets) != bucket {
				return nil, fmt.Errorf("%w: %q: %s is in bucket %d of %d, where it does not belong", storage.ErrCorrupt, header.Key, pattern, bucket, current.Buckets)
			}
			edits[pattern] = true
		}
	}
	message := &namewardv1.DomainSet{}
	if err := proto.Unmarshal(header.Value, message); err != nil {
		return nil, fmt.Errorf("%w: %q: %w", storage.ErrCorrupt, header.Key, err)
	}
	set, err := policy.ParseDomainSet(message)
	if err != nil {
		return nil, fmt.Errorf("%w: %q: %w", storage.ErrCorrupt, header.Key, err)
	}
	set.DomainSet = current.Edited(edits)
	if len(set.Domains) != int(message.GetDomainCount()) {
		return nil, fmt.Errorf("%w: %q: %d domains are there of %d", storage.ErrCorrupt, header.Key, len(set.Domains), message.GetDomainCount())
	}
	set.Buckets, set.Revision = current.Buckets, header.Revision
	set.Etag = etag(set.Revision, sha256.Sum256(header.Value))
	return set, nil
}

// Reload takes everything in place of what was known. What is as it was stays the same object, so that nothing is made
// of it anew; watches begin with a snapshot.
func (s follower) Reload(from func(record func(storage.Record) error) (storage.Meta, error)) error {
	fresh, err := memdb.NewMemDB(schema())
	if err != nil {
		return fmt.Errorf("make read model: %w", err)
	}
	loaded := fresh.Txn(true)
	defer loaded.Abort()
	meta, err := load(loaded, from)
	if err != nil {
		return err
	}
	if meta.StoreID != s.id {
		return fmt.Errorf("the store is another one, %s instead of %s: restart the server", meta.StoreID, s.id)
	}
	nodes := s.replaceAll(loaded, meta)
	for id, n := range nodes {
		s.nodesChanged(id, n)
	}
	return nil
}

// replaceAll returns the nodes that are new, and those that are gone, with nil.
func (s follower) replaceAll(loaded *memdb.Txn, meta storage.Meta) map[node.ID]*Node {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nodes.mu.Lock()
	defer s.nodes.mu.Unlock()
	txn := s.db.Txn(true)
	defer txn.Abort()
	replaceTable(txn, loaded, tablePolicies, func(before, now *policy.Policy) *policy.Policy {
		if before != nil && before.Etag == now.Etag {
			return before
		}
		return now
	}, func(p *policy.Policy) string { return p.Name })
	replaceTable(txn, loaded, tableDomainSets, func(before, now *policy.DomainSet) *policy.DomainSet {
		if before != nil && before.Etag == now.Etag {
			return before
		}
		return now
	}, func(set *policy.DomainSet) string { return set.Name })
	changed := map[node.ID]*Node{}
	for _, place := range all[*nodePlace](txn, tableNodes, indexID) {
		changed[place.id] = nil
	}
	replaceTable(txn, loaded, tableNodes, func(before, now *nodePlace) *nodePlace {
		delete(changed, now.id)
		if before == nil {
			changed[now.id] = now.newest.Load()
			return now
		}
		kept := *now.newest.Load()
		kept.Status = before.newest.Load().Status
		before.newest.Store(&kept)
		return before
	}, func(place *nodePlace) string { return place.id.String() })
	txn.Commit()
	clear(s.nodes.known)
	s.nodes.tell()
	s.revision = meta.Revision
	s.policyRevision = max(meta.Collections[collectionOf(policy.Collection)], firstRevision)
	s.rulesRevision = max(s.policyRevision, meta.Collections[collectionOf(policy.DomainSetCollection)])
	s.current = newCurrent(s.db.Txn(false))
	left := s.history
	s.history = newHistory(s.policyRevision, historyEvents, historyBytes)
	left.end()
	close(s.rulesChanged)
	s.rulesChanged = make(chan struct{})
	return changed
}

// replaceTable makes a table of txn hold what one of loaded holds; which says which object that is, given the one
// before, if any.
func replaceTable[T any](txn, loaded *memdb.Txn, table string, which func(before, now T) T, key func(T) string) {
	before := map[string]T{}
	for _, object := range all[T](txn, table, indexID) {
		before[key(object)] = object
	}
	if _, err := txn.DeleteAll(table, indexID); err != nil {
		panic(fmt.Sprintf("empty %s: %v", table, err)) // the schema lacks the index
	}
	for _, object := range all[T](loaded, table, indexID) {
		if err := txn.Insert(table, which(before[key(object)], object)); err != nil {
			panic(fmt.Sprintf("fill %s: %v", table, err)) // the schema does not fit
		}
	}
}

// end sends the readers that wait for the next change back to a snapshot.
func (h *history) end() {
	close(h.latest.linked)
}
