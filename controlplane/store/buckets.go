package store

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/controlplane/policy"
	"github.com/nameward/nameward/controlplane/storage"
)

// On disk a domain set is a record with all but the domains, under its name, and one for each bucket: the
// domains whose hash says so, sorted, a line each. A change writes the first, which guards the commit, and
// the buckets of the domains that come or go. Every bucket has a record, also when it is empty, so that the
// records say how many there are.

const (
	// bucketDomains is how many domains a bucket has in a set that is laid out anew.
	bucketDomains = 512
	// Between these sizes of the average bucket a set keeps its buckets.
	bucketDomainsMin, bucketDomainsMax = 64, 4 * bucketDomains
)

// bucketKey returns the key of a bucket's record.
func bucketKey(name string, bucket int) string { return fmt.Sprintf("%s/%04x", name, bucket) }

// parseBucketKey returns the name of the set and which bucket it is; false for the key of no bucket.
func parseBucketKey(key string) (name string, bucket int, ok bool) {
	slash := strings.LastIndexByte(key, '/')
	if slash < len(policy.DomainSetCollection) {
		return "", 0, false
	}
	number, err := strconv.ParseUint(key[slash+1:], 16, 16)
	return key[:slash], int(number), err == nil //nolint:gosec // 16 bits
}

// bucketOf returns the bucket of a domain among so many, a power of two. The hash (FNV-1a) is part of the
// format on disk.
func bucketOf(text string, buckets int) int {
	hash := uint32(2166136261)
	for i := range len(text) {
		hash = (hash ^ uint32(text[i])) * 16777619
	}
	return int(hash^hash>>16) & (buckets - 1)
}

// bucketsFor returns how many buckets a set of that size gets, which now has so many, 0 for none.
func bucketsFor(domains, now int) int {
	if now > 0 && domains <= now*bucketDomainsMax && (now == 1 || domains >= now*bucketDomainsMin) {
		return now
	}
	buckets := 1
	for buckets*bucketDomains < domains {
		buckets *= 2
	}
	return buckets
}

// layOut says how many buckets a set has that takes the place of current, nil for none, and returns the
// operations that bring the buckets on disk to what the set has.
func layOut(set, current *policy.DomainSet) []storage.Operation {
	if current == nil {
		current = &policy.DomainSet{}
	}
	set.Buckets = bucketsFor(len(set.Domains), current.Buckets)
	values := make([][]byte, set.Buckets)
	for i := range touched(set, current) {
		values[i] = []byte{} // not nil, which deletes
	}
	for _, pattern := range set.Domains {
		i := bucketOf(pattern.String(), set.Buckets)
		if values[i] != nil {
			values[i] = append(append(values[i], pattern.String()...), '\n')
		}
	}
	var operations []storage.Operation
	for i, value := range values {
		if value != nil {
			operations = append(operations, storage.Operation{Key: bucketKey(set.Name, i), Value: value})
		}
	}
	for i := set.Buckets; i < current.Buckets; i++ {
		operations = append(operations, storage.Operation{Key: bucketKey(set.Name, i)})
	}
	return operations
}

// touched returns the buckets of a set that are other ones than those of current.
func touched(set, current *policy.DomainSet) map[int]bool {
	buckets := map[int]bool{}
	if set.Buckets != current.Buckets {
		for i := range set.Buckets {
			buckets[i] = true
		}
		return buckets
	}
	removed, added := ruleset.Difference(current.Domains, set.Domains)
	for _, list := range [][]domain.Pattern{removed, added} {
		for _, pattern := range list {
			buckets[bucketOf(pattern.String(), set.Buckets)] = true
		}
	}
	return buckets
}
