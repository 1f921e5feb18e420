package publish

import (
	"maps"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/controlplane/compile"
	"github.com/nameward/nameward/controlplane/policy"
)

// messageLimit bounds the changes in one message. A policy that is larger goes alone.
const messageLimit = 64 << 10

// deltaLimit bounds how many encoded deltas a content keeps: readers that skipped start from many places.
const deltaLimit = 64

// Content is a rule set that some nodes want, with the encodings that their streams share. Contents with
// equal ids are one.
type Content struct {
	ID    ruleset.ID
	rules *ruleset.RuleSet
	// selected and domainSets are what the rules were made of: equal pointers mean equal rules.
	selected   []*policy.Policy
	domainSets []*policy.DomainSet

	mu       sync.Mutex // guards the encodings
	snapshot [][]byte
	deltas   map[ruleset.ID][][]byte
}

// RuleSet returns the rules.
func (c *Content) RuleSet() *ruleset.RuleSet { return c.rules }

// Snapshot returns the whole rule set as encoded SyncResponses that hold changes and nothing else, in
// order. The bytes are shared: not to be changed. There is at least one.
func (c *Content) Snapshot() ([][]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.snapshot == nil {
		encoded, err := encode((&ruleset.RuleSet{}).Changes(c.rules))
		if err != nil {
			return nil, err
		}
		c.snapshot = encoded
	}
	return c.snapshot, nil
}

// ChangesFrom returns what makes this rule set of another, in the form of Snapshot.
func (c *Content) ChangesFrom(from *Content) ([][]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if delta, ok := c.deltas[from.ID]; ok {
		return delta, nil
	}
	delta, err := encode(from.changes(c))
	if err != nil {
		return nil, err
	}
	if len(c.deltas) >= deltaLimit {
		clear(c.deltas)
	}
	if c.deltas == nil {
		c.deltas = map[ruleset.ID][][]byte{}
	}
	c.deltas[from.ID] = delta
	return delta, nil
}

// retire gives back the memory of encodings that no stream will ask for soon.
func (c *Content) retire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.snapshot, c.deltas = nil, nil
}

// changes returns what RuleSet.Changes does, but compares in depth only what is not shared: of thousands
// of policies and domain sets mostly one.
func (c *Content) changes(next *Content) []*agentv1.RuleSetChange {
	removed, added := notShared(c.selected, next.selected)
	removedSets, addedSets := notShared(c.domainSets, next.domainSets)
	return compile.Rules(removed, removedSets).Changes(compile.Rules(added, addedSets))
}

// notShared returns what of before is not in next, and what of next is not in before.
func notShared[E comparable](before, next []E) (removed, added []E) {
	left := make(map[E]struct{}, len(before))
	for _, e := range before {
		left[e] = struct{}{}
	}
	for _, e := range next {
		if _, shared := left[e]; shared {
			delete(left, e)
		} else {
			added = append(added, e)
		}
	}
	return slices.Collect(maps.Keys(left)), added
}

// encode splits changes into messages.
func encode(changes []*agentv1.RuleSetChange) ([][]byte, error) {
	messages := [][]byte{nil}
	for _, change := range changes {
		encoded, err := proto.Marshal(&agentv1.SyncResponse{Changes: []*agentv1.RuleSetChange{change}})
		if err != nil {
			return nil, err
		}
		last := len(messages) - 1
		if len(messages[last]) > 0 && len(messages[last])+len(encoded) > messageLimit {
			messages = append(messages, nil)
			last++
		}
		// Encodings of one message type, one behind the other, encode both: see SyncService.
		messages[last] = append(messages[last], encoded...)
	}
	return messages, nil
}
