package datapath

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/dataplane/lower"
)

// names is the index with what each of its generations has still to be told.
type names struct {
	*nameIndex
	kernel  *kernel
	general [2]*generalPatterns // of each generation
	common  [2]lower.CommonSets // the same: what entries refer to
	// stale holds the names whose match sets a generation may not have as they are now; nil: all names.
	stale [2]map[string]bool
	// doubtful: a write was not finished, so the mirror may say more than the maps hold.
	doubtful bool
}

func openNames(k *kernel) (*names, error) {
	s, err := k.settings()
	if err != nil {
		return nil, err
	}
	index, err := readNameIndex(s.HashKey, k.NameIndex, k.NameCells)
	if err != nil {
		return nil, err
	}
	general, err := k.readGeneral()
	if err != nil {
		return nil, err
	}
	common, err := k.readCommon()
	if err != nil {
		return nil, err
	}
	return &names{nameIndex: index, kernel: k, general: general, common: common}, nil
}

// change notes names whose match sets changed.
func (n *names) change(changed []string) {
	for _, stale := range n.stale {
		if stale == nil {
			continue
		}
		for _, name := range changed {
			stale[name] = true
		}
	}
}

// write brings the match sets of one generation up to date: general patterns and common sets first, then the
// cells that lead to them, then the slots that lead to new cells. Without room for all of them nothing changes.
func (n *names) write(generation uint32, state *lower.State, general lower.GeneralPatterns) error {
	stale := n.stale[generation]
	if stale == nil {
		stale = map[string]bool{}
		for e := range n.all() {
			stale[e.name] = true
		}
		for name := range state.Names() {
			stale[name] = true
		}
	}
	sorted := slices.Sorted(maps.Keys(stale))
	unplaced := n.unplaced(sorted, state)
	added, err := n.addAll(unplaced)
	if errors.Is(err, errScattered) {
		if err = n.gather(); err == nil {
			added, err = n.addAll(unplaced)
		}
	}
	if err != nil {
		return err
	}
	var cells []uint32
	var texts []rawCell
	for _, name := range sorted {
		e := n.find(name)
		if e == nil || !n.set(e, generation, state) {
			continue
		}
		cells, texts = e.write(cells, texts)
	}
	n.doubtful = true
	if err := n.writeGeneral(generation, general); err != nil {
		return err
	}
	if err := n.writeCommon(generation, state.Common()); err != nil {
		return err
	}
	if err := putKeys(n.kernel.NameCells, cells, texts); err != nil {
		return err
	}
	if err := n.writeBuckets(added); err != nil {
		return err
	}
	n.doubtful = false
	n.stale[generation] = map[string]bool{}
	return nil
}

// unplaced gives, of names, those that have something to say and no place.
func (n *names) unplaced(names []string, state *lower.State) []string {
	var without []string
	for _, name := range names {
		if state.Sets(name) != (lower.NameSets{}) && n.find(name) == nil {
			without = append(without, name)
		}
	}
	return without
}

// set gives an entry what there is to say of its name, and reports whether it had something else.
func (n *names) set(e *nameEntry, generation uint32, state *lower.State) bool {
	sets := state.Sets(e.name)
	changed := e.sets[generation] != sets
	e.sets[generation] = sets
	n.noteEmpty(e)
	return changed
}

func (n *names) noteEmpty(e *nameEntry) {
	if e.sets == [2]lower.NameSets{} {
		n.empty[e.name] = true
	} else {
		delete(n.empty, e.name)
	}
}

// free gives back the places of names that have been of no use in any generation since the last
// switch. To be called when no program runs that began before that.
func (n *names) free() error {
	if n.doubtful {
		again, err := openNames(n.kernel)
		if err != nil {
			return err
		}
		*n = *again
	}
	n.doubtful = len(n.empty) > 0
	for name := range n.empty {
		delete(n.empty, name)
		e := n.find(name)
		if e == nil || e.sets != [2]lower.NameSets{} {
			continue
		}
		for _, bucket := range n.remove(e) {
			if err := n.writeBuckets([]uint32{bucket}); err != nil {
				return err
			}
		}
	}
	n.doubtful = false
	return nil
}

func (n *names) writeBuckets(buckets []uint32) error {
	values := make([]bpf.DatapathNameBucket, len(buckets))
	for i, bucket := range buckets {
		values[i] = n.buckets[bucket]
	}
	if err := putKeys(n.kernel.NameIndex, buckets, values); err != nil {
		return fmt.Errorf("index names: %w", err)
	}
	return nil
}
