package datapath

import (
	"fmt"
	"maps"
	"slices"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/dataplane/lower"
)

// names is the index with what each of its generations has still to be told.
type names struct {
	*nameIndex
	kernel *kernel
	// stale holds the names whose match sets a generation may not have as they are now; nil: all names.
	stale [2]map[string]bool
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
	return &names{nameIndex: index, kernel: k}, nil
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

// write brings the match sets of one generation up to date: cells first, then the slots that lead to
// new ones.
func (n *names) write(generation uint32, state *lower.State) error {
	stale := n.stale[generation]
	if stale == nil {
		stale = map[string]bool{}
		for name := range n.entries {
			stale[name] = true
		}
		for name := range state.Names() {
			stale[name] = true
		}
	}
	var w nameWrites
	var full error
	for _, name := range slices.Sorted(maps.Keys(stale)) {
		if full = n.set(name, generation, state, &w); full != nil {
			break
		}
	}
	// What has a place in the mirror must have it in the maps too, also when there was no room for all.
	if err := putKeys(n.kernel.NameCells, w.cells, w.texts); err != nil {
		return err
	}
	if err := n.writeBuckets(slices.Sorted(maps.Keys(w.buckets))); err != nil {
		return err
	}
	if full != nil {
		return full
	}
	n.stale[generation] = map[string]bool{}
	return nil
}

// nameWrites gathers what is to be written to the maps.
type nameWrites struct {
	cells   []uint32
	texts   []rawCell
	buckets map[uint32]bool
}

func (n *names) set(name string, generation uint32, state *lower.State, w *nameWrites) error {
	exact, below := state.Sets(name)
	e := n.entries[name]
	if e == nil && exact == 0 && below == 0 {
		return nil
	}
	if e == nil {
		var err error
		if e, err = n.add(name); err != nil {
			return err
		}
		if w.buckets == nil {
			w.buckets = map[uint32]bool{}
		}
		w.buckets[e.bucket] = true
	} else if e.exact[generation] == uint32(exact) && e.below[generation] == uint32(below) {
		n.noteEmpty(name, e)
		return nil
	}
	e.exact[generation], e.below[generation] = uint32(exact), uint32(below)
	n.noteEmpty(name, e)
	for i, text := range e.encode(name) {
		w.cells = append(w.cells, e.cell+uint32(i)) //nolint:gosec // a few cells
		w.texts = append(w.texts, text)
	}
	return nil
}

func (n *names) noteEmpty(name string, e *nameEntry) {
	if e.exact == [2]uint32{} && e.below == [2]uint32{} {
		n.empty[name] = true
	} else {
		delete(n.empty, name)
	}
}

// free gives back the places of names that have had no match set in any generation since the last
// switch. To be called when no program runs that began before that.
func (n *names) free() error {
	for name := range n.empty {
		delete(n.empty, name)
		if e := n.entries[name]; e == nil || e.exact != [2]uint32{} || e.below != [2]uint32{} {
			continue
		}
		for _, bucket := range n.remove(name) {
			if err := n.writeBuckets([]uint32{bucket}); err != nil {
				return err
			}
		}
	}
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
