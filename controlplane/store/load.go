package store

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/go-memdb"
	"google.golang.org/protobuf/proto"

	"github.com/nameward/nameward/api/domain"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/controlplane/policy"
	"github.com/nameward/nameward/controlplane/storage"
)

// loader makes the read model of the records of a storage.
type loader struct {
	txn      *memdb.Txn
	policies []*policy.Policy
	sets     map[string]*loadedSet
}

// loadedSet is what of a domain set has been read.
type loadedSet struct {
	header  *storage.Record
	buckets map[int][]domain.Pattern
}

func (l *loader) load(record storage.Record) error {
	switch collection := collectionOf(record.Key); collection {
	case collectionOf(policy.Collection):
		p, err := readPolicy(record)
		if err != nil {
			return err
		}
		l.policies = append(l.policies, p)
		return l.txn.Insert(tablePolicies, p)
	case collectionOf(policy.DomainSetCollection):
		return l.loadOfSet(record)
	case collectionOf(nodeCollection):
		n, err := readNode(record)
		if err != nil {
			return err
		}
		return l.txn.Insert(tableNodes, newNodePlace(n))
	default:
		return fmt.Errorf("%w: %q: no collection %q is known to this version", storage.ErrCorrupt, record.Key, collection)
	}
}

// loadOfSet keeps a record of a domain set until all are there.
func (l *loader) loadOfSet(record storage.Record) error {
	name, bucket, ok := parseBucketKey(record.Key)
	if !ok {
		name = record.Key
	}
	set := l.sets[name]
	if set == nil {
		set = &loadedSet{buckets: map[int][]domain.Pattern{}}
		l.sets[name] = set
	}
	if !ok {
		set.header = &record
		return nil
	}
	domains, err := readBucket(record)
	set.buckets[bucket] = domains
	return err
}

// readBucket returns the domains of a bucket's record.
func readBucket(record storage.Record) (domains []domain.Pattern, err error) {
	for line := range strings.Lines(string(record.Value)) {
		text := strings.TrimSuffix(line, "\n")
		pattern, err := domain.ParsePattern(text)
		if err == nil && pattern.String() != text {
			err = errors.New("is not canonical")
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %q: domain %q: %w", storage.ErrCorrupt, record.Key, text, err)
		}
		domains = append(domains, pattern)
	}
	return domains, nil
}

// finish makes the domain sets, and holds the policies against them.
func (l *loader) finish() error {
	sets := map[string]bool{}
	for name, loaded := range l.sets {
		set, err := loaded.read(name)
		if err != nil {
			return err
		}
		if err := l.txn.Insert(tableDomainSets, set); err != nil {
			return fmt.Errorf("load %s: %w", name, err)
		}
		sets[name] = true
	}
	for _, p := range l.policies {
		for _, rule := range p.Rules.Rules {
			for _, name := range rule.DomainSets {
				if !sets[name] {
					return fmt.Errorf("%w: %q: the domain set %q, which it names, is missing", storage.ErrCorrupt, p.Name, name)
				}
			}
		}
	}
	return nil
}

// read makes the set, if all of it is there.
func (l *loadedSet) read(name string) (*policy.DomainSet, error) {
	corrupt := func(format string, args ...any) error {
		return fmt.Errorf("%w: %q: "+format, append([]any{storage.ErrCorrupt, name}, args...)...)
	}
	if l.header == nil {
		return nil, corrupt("has domains, but no record of its own")
	}
	message := &namewardv1.DomainSet{}
	if err := proto.Unmarshal(l.header.Value, message); err != nil {
		return nil, corrupt("%w", err)
	}
	if message.GetName() != name {
		return nil, corrupt("holds the domain set %q", message.GetName())
	}
	buckets, count := len(l.buckets), int(message.GetDomainCount())
	domains := make([]domain.Pattern, 0, count)
	for i := range buckets {
		bucket, ok := l.buckets[i]
		if !ok {
			return nil, corrupt("bucket %d of %d is missing", i, buckets)
		}
		domains = append(domains, bucket...)
		for _, pattern := range bucket {
			if buckets&(buckets-1) != 0 || bucketOf(pattern.String(), buckets) != i {
				return nil, corrupt("%s is in bucket %d of %d, where it does not belong", pattern, i, buckets)
			}
		}
	}
	set, err := policy.ParseDomainSet(message)
	if err != nil {
		return nil, corrupt("%w", err)
	}
	set.DomainSet = ruleset.NewDomainSet(name, domains)
	if len(set.Domains) != count || buckets == 0 {
		return nil, corrupt("%d domains in %d buckets are there of %d", len(set.Domains), buckets, count)
	}
	set.Buckets, set.Revision = buckets, l.header.Revision
	set.Etag = etag(set.Revision, sha256.Sum256(l.header.Value))
	return set, nil
}
