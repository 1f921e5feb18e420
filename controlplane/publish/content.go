package publish

import (
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
	ID ruleset.ID
	// selected and domainSets are what the rules are made of: equal pointers mean equal rules.
	selected   []*policy.Policy
	domainSets []*policy.DomainSet
	rules      func() *ruleset.RuleSet

	mu       sync.Mutex // guards the encodings
	snapshot [][]byte
	deltas   map[ruleset.ID][][]byte
}

func newContent(selected []*policy.Policy, domainSets []*policy.DomainSet) *Content {
	return &Content{
		ID: compile.ID(selected, domainSets), selected: selected, domainSets: domainSets,
		rules: sync.OnceValue(func() *ruleset.RuleSet { return compile.Rules(selected, domainSets) }),
	}
}

// RuleSet returns the rules.
func (c *Content) RuleSet() *ruleset.RuleSet { return c.rules() }

// Snapshot returns the whole rule set as encoded SyncResponses that hold changes and nothing else, in
// order. The bytes are shared: not to be changed. There is at least one.
func (c *Content) Snapshot() ([][]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.snapshot == nil {
		encoded, err := encode((&ruleset.RuleSet{}).Changes(compile.Rules(c.selected, c.domainSets)))
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
	change := compile.Difference(c.selected, next.selected)
	removedSets, addedSets := setDifference(c.domainSets, next.domainSets)
	return compile.Rules(change.Removed, removedSets).Changes(compile.Rules(change.Added, addedSets))
}

// setDifference returns what of before is not in next, and what of next is not in before. They are few.
func setDifference(before, next []*policy.DomainSet) (removed, added []*policy.DomainSet) {
	left := make(map[*policy.DomainSet]struct{}, len(before))
	for _, set := range before {
		left[set] = struct{}{}
	}
	for _, set := range next {
		if _, shared := left[set]; !shared {
			added = append(added, set)
		}
		delete(left, set)
	}
	for _, set := range before {
		if _, gone := left[set]; gone {
			removed = append(removed, set)
		}
	}
	return removed, added
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
