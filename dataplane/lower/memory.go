package lower

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"github.com/nameward/nameward/api/domain"
)

// Memory is what has to outlive the process so that match sets keep their meaning: with it, what was
// learned while no process ran still opens doors under the rule set that comes next.
type Memory struct {
	NextSelector uint32
	NextMatchSet MatchSet
	Selectors    []SelectorMemory
	MatchSets    []MatchSetMemory
}

// SelectorMemory says which list of domains a selector stood for.
type SelectorMemory struct {
	// Policy and Rule say where the list stands: in a rule, or, with the rule -1, in the domain set that
	// Policy names.
	Policy string
	Rule   int
	ID     uint32
	Digest Digest
}

// MatchSetMemory says which selectors a match set is made of.
type MatchSetMemory struct {
	ID        MatchSet
	Selectors []uint32
}

// Digest identifies a list of domains whatever its order: the sum of its patterns' digests, so that it
// follows a change of a long list at the cost of the change.
type Digest [2]uint64

func (d *Digest) add(p domain.Pattern) {
	h := patternDigest(p)
	d[0] += h[0]
	d[1] += h[1]
}

func (d *Digest) remove(p domain.Pattern) {
	h := patternDigest(p)
	d[0] -= h[0]
	d[1] -= h[1]
}

func patternDigest(p domain.Pattern) Digest {
	sum := sha256.Sum256([]byte(p.String()))
	return Digest{binary.LittleEndian.Uint64(sum[:]), binary.LittleEndian.Uint64(sum[8:])}
}

func digestOf(patterns []domain.Pattern) Digest {
	var d Digest
	for _, p := range patterns {
		d.add(p)
	}
	return d
}

// Memory returns what to keep, and whether it changed since Kept was last called; nothing if not.
func (s *State) Memory() (memory Memory, changed bool) {
	if !s.forgetful {
		return Memory{}, false
	}
	return s.Recall(), true
}

// Recall returns the memory, changed or not.
func (s *State) Recall() Memory {
	memory := Memory{NextSelector: s.nextSelector, NextMatchSet: s.sets.next}
	for key, selector := range s.selectors {
		memory.Selectors = append(memory.Selectors, SelectorMemory{key.policy, key.rule, selector.id, selector.digest})
	}
	slices.SortFunc(memory.Selectors, func(a, b SelectorMemory) int { return cmp.Compare(a.ID, b.ID) })
	for id, selectors := range s.sets.members {
		memory.MatchSets = append(memory.MatchSets, MatchSetMemory{id, selectors})
	}
	slices.SortFunc(memory.MatchSets, func(a, b MatchSetMemory) int { return cmp.Compare(a.ID, b.ID) })
	return memory
}

// Kept says that what Memory returned is kept.
func (s *State) Kept() { s.forgetful = false }
