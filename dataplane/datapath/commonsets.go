package datapath

import (
	"fmt"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/dataplane/lower"
)

// A cell refers to match sets as lower does; the compiler checks it.
var (
	_ [len(lower.CommonSets{})]uint32 = bpf.DatapathCommonMatchSets{}.Sets

	_ = [1]struct{}{}[lower.MaxMatchSet-(1<<matchSetBits-1)]
)

// readCommon reads the common sets of each generation.
func (k *kernel) readCommon() (common [2]lower.CommonSets, err error) {
	for generation := range uint32(len(common)) {
		var record bpf.DatapathCommonMatchSets
		if err := k.CommonSets.Lookup(generation, &record); err != nil {
			return common, fmt.Errorf("read common match sets: %w", err)
		}
		for place, set := range record.Sets {
			common[generation][place] = lower.MatchSet(set)
		}
	}
	return common, nil
}

// writeCommon makes the map hold the common sets under a generation, which nobody reads.
func (n *names) writeCommon(generation uint32, common lower.CommonSets) error {
	var record bpf.DatapathCommonMatchSets
	for place, set := range common {
		record.Sets[place] = uint32(set)
	}
	if err := n.kernel.CommonSets.Put(generation, &record); err != nil {
		return fmt.Errorf("write common match sets: %w", err)
	}
	n.common[generation] = common
	return nil
}

// movesWith reports whether what a generation says of a plain name is a common set that is another one in the other
// generation.
func (n *names) movesWith(name string, generation uint32) bool {
	if !n.moves(generation, 1-generation) {
		return false
	}
	sets, exact, _ := n.match(name, generation)
	refers := sets.Below
	if exact {
		refers = sets.Exact
	}
	return n.common[0].Of(refers) != n.common[1].Of(refers)
}

// moves reports whether some place has a match set in one generation and another one in the other: then names have
// other ones that refer to the same.
func (n *names) moves(from, to uint32) bool {
	for place, set := range n.common[from] {
		if set != 0 && set != n.common[to][place] {
			return true
		}
	}
	return false
}
