package publish

import (
	"fmt"
	"sync"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	"github.com/nameward/nameward/api/pack"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/controlplane/compile"
	"github.com/nameward/nameward/controlplane/policy"
)

// deltaLimit bounds how many encoded deltas a content keeps: readers that skipped start from many places.
const deltaLimit = 64

// Content is a rule set that some nodes want, with the encodings that their streams share. Contents with
// equal ids are one.
type Content struct {
	ID       ruleset.ID
	identity *compile.Identity
	// selected and domainSets are what the rules are made of: equal pointers mean equal rules.
	selected   []*policy.Policy
	domainSets []*policy.DomainSet
	rules      func() *ruleset.RuleSet
	packer     *pack.Packer

	mu       sync.Mutex // guards the encodings; of two contents, the newer one's is taken first
	snapshot [][]byte
	deltas   map[ruleset.ID]*encoding
	// packed is what a packed snapshot begins with, joined that with what changed since.
	packed *packed
	joined [][]byte
}

// newContent makes the content of policies and sets, of which many are those of another, if there is one.
func newContent(packer *pack.Packer, selected []*policy.Policy, domainSets []*policy.DomainSet, like *Content) *Content {
	var before *compile.Identity
	if like != nil {
		before = like.identity
	}
	identity, err := compile.Identify(selected, domainSets, before)
	if err != nil {
		panic(fmt.Sprintf("identify a rule set: %v", err)) // SHA-256 knows its own states
	}
	return &Content{
		packer: packer,
		ID:     identity.ID, identity: identity, selected: selected, domainSets: domainSets,
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
		encoded, err := encodeWhole(c.selected, c.domainSets)
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
	delta, err := c.delta(from)
	if err != nil {
		return nil, err
	}
	if delta.messages == nil {
		// Agents that read no packed changes are few, but where there is one there may be others.
		if delta.messages, err = encode(from.changes(c)); err != nil {
			return nil, err
		}
	}
	return delta.messages, nil
}

// PackedChangesFrom returns what ChangesFrom does, for agents that read packed changes.
func (c *Content) PackedChangesFrom(from *Content) ([][]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delta, err := c.delta(from)
	if err != nil {
		return nil, err
	}
	return delta.packed(), nil
}

// delta is called under mu.
func (c *Content) delta(from *Content) (*encoding, error) {
	if delta, ok := c.deltas[from.ID]; ok {
		return delta, nil
	}
	messages, err := encode(from.changes(c))
	if err != nil {
		return nil, err
	}
	if len(c.deltas) >= deltaLimit {
		clear(c.deltas)
	}
	if c.deltas == nil {
		c.deltas = map[ruleset.ID]*encoding{}
	}
	delta := newEncoding(c.packer, messages)
	c.deltas[from.ID] = delta
	return delta, nil
}

// retire gives back the memory of encodings that no stream will ask for soon.
func (c *Content) retire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.snapshot, c.deltas, c.packed, c.joined = nil, nil, nil, nil
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
