package store

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/hashicorp/go-memdb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/controlplane/policy"
	"github.com/nameward/nameward/controlplane/storage"
)

// Guard says what must be so for a change to happen. The zero Guard asks for nothing.
type Guard struct {
	// Etag, if set, is that of the object to change; ErrStale when it has another, or is gone.
	Etag string
	// MustExist makes it ErrNotFound when there is no such object.
	MustExist bool
	// MustNotExist makes it ErrExists when there is one.
	MustNotExist bool
}

// Check returns what the guard says of an object that has this etag now, "" for none.
func (g Guard) Check(name, etag string) error {
	var err error
	switch {
	case etag == "" && g.MustExist:
		err = ErrNotFound
	case etag == "" && g.Etag != "":
		err = ErrStale
	case etag != "" && g.MustNotExist:
		err = ErrExists
	case etag != "" && g.Etag != "" && g.Etag != etag:
		err = ErrStale
	default:
		return nil
	}
	return &ResourceError{Name: name, Err: err}
}

// Policy returns the policy of a resource name, or ErrNotFound.
func (s *Store) Policy(name string) (*policy.Policy, error) {
	p, err := s.lookUp(name)
	if err != nil {
		return nil, err
	}
	if p == nil {
		return nil, &ResourceError{Name: name, Err: ErrNotFound}
	}
	return p, nil
}

// etagOf returns "" for no policy.
func etagOf(p *policy.Policy) string {
	if p == nil {
		return ""
	}
	return p.Etag
}

// lookUp returns nil when there is no such policy.
func (s *Store) lookUp(name string) (*policy.Policy, error) {
	object, err := s.db.Txn(false).First(tablePolicies, indexID, name)
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", name, err)
	}
	p, _ := object.(*policy.Policy)
	return p, nil
}

// PutPolicy makes or replaces a policy and returns it as stored, with its new etag and times. It returns
// when the policy is durable and visible to readers; a *PreconditionError when it names a domain set that
// does not exist. Where it would change nothing, it writes nothing and returns the policy that there is. Etag
// and times of p itself are ignored.
func (s *Store) PutPolicy(ctx context.Context, p *policy.Policy, guard Guard) (*policy.Policy, error) {
	wanted := policy.WithoutOutput(p.Message)
	s.references.RLock()
	defer s.references.RUnlock()
	for {
		if err := s.CheckReferences(p); err != nil {
			return nil, err
		}
		current, err := s.lookUp(p.Name)
		if err != nil {
			return nil, err
		}
		if err := guard.Check(p.Name, etagOf(current)); err != nil {
			return nil, err
		}
		if current != nil && proto.Equal(wanted, policy.WithoutOutput(current.Message)) {
			return current, nil
		}
		stored, err := s.writePolicy(ctx, p, wanted, current)
		// Somebody was faster. The guard is judged anew by what that left; each round, somebody gets ahead.
		if errors.Is(err, storage.ErrConflict) {
			continue
		}
		return stored, err
	}
}

// writePolicy commits wanted, whose checked form is p, in place of current.
func (s *Store) writePolicy(ctx context.Context, p *policy.Policy, wanted *namewardv1.Policy, current *policy.Policy) (*policy.Policy, error) {
	stored := *p
	stored.UpdateTime = now()
	stored.CreateTime = stored.UpdateTime
	expected := storage.ExpectAbsent()
	if current != nil {
		stored.CreateTime = current.CreateTime
		expected = storage.ExpectRevision(current.Revision)
	}
	stored.Message = policy.Copy(wanted)
	stored.Message.CreateTime = timestamppb.New(stored.CreateTime)
	stored.Message.UpdateTime = timestamppb.New(stored.UpdateTime)
	value, err := proto.Marshal(stored.Message)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", p.Name, err)
	}
	content := sha256.Sum256(value)
	operations := []storage.Operation{{Key: p.Name, Value: value, Expected: expected}}
	for _, rule := range p.Rules.Rules {
		for _, set := range rule.DomainSets {
			// Another server may delete it at the same moment.
			operations = append(operations, storage.Require(set))
		}
	}
	change := Change{Name: p.Name, Before: State{Policy: current}, After: State{Policy: &stored}, Content: content}
	err = s.commit(ctx, change, operations, func(revision uint64) {
		stored.Revision, stored.Etag = revision, etag(revision, content)
		stored.Message.Etag = stored.Etag
		s.apply(revision, func(txn *memdb.Txn) error { return txn.Insert(tablePolicies, &stored) }, &stored, "")
	})
	if err != nil {
		return nil, fmt.Errorf("commit %s: %w", p.Name, err)
	}
	return &stored, nil
}

// DeletePolicy deletes a policy; ErrNotFound when there is none. It returns when that is durable and
// visible to readers.
func (s *Store) DeletePolicy(ctx context.Context, name string, guard Guard) error {
	guard.MustExist = true
	for {
		current, err := s.lookUp(name)
		if err != nil {
			return err
		}
		if err := guard.Check(name, etagOf(current)); err != nil {
			return err
		}
		operations := []storage.Operation{{Key: name, Expected: storage.ExpectRevision(current.Revision)}}
		change := Change{Name: name, Before: State{Policy: current}}
		err = s.commit(ctx, change, operations, func(revision uint64) {
			s.apply(revision, func(txn *memdb.Txn) error { return txn.Delete(tablePolicies, current) }, nil, name)
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

// apply makes a durable change of a policy visible: to readers, and as an event to watchers.
func (s *Store) apply(revision uint64, change func(*memdb.Txn) error, put *policy.Policy, deleted string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := deleted
	if put != nil {
		name = put.Name
	}
	before, err := s.lookUp(name)
	if err != nil {
		panic(err) // the schema lacks the index
	}
	s.change(revision, change)
	s.current.replacePolicy(name, before, put)
	s.policyRevision = revision
	s.history.add(revision, put, deleted)
}

func readPolicy(record storage.Record) (*policy.Policy, error) {
	message := &namewardv1.Policy{}
	if err := proto.Unmarshal(record.Value, message); err != nil {
		return nil, fmt.Errorf("%w: %q: %w", storage.ErrCorrupt, record.Key, err)
	}
	if message.GetName() != record.Key {
		return nil, fmt.Errorf("%w: %q: holds the policy %q", storage.ErrCorrupt, record.Key, message.GetName())
	}
	p, err := policy.Parse(message)
	if err != nil {
		return nil, fmt.Errorf("%w: %q: %w", storage.ErrCorrupt, record.Key, err)
	}
	p.Revision, p.Etag = record.Revision, etag(record.Revision, sha256.Sum256(record.Value))
	p.Message.Etag = p.Etag
	return p, nil
}

// etag makes an etag of the revision and the digest of what is on disk. Neither is part of the latter: the
// revision is known only when that has been written.
func etag(revision uint64, content [sha256.Size]byte) string {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(content[:], revision))
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}
