package lower

import (
	"encoding/binary"
	"slices"
	"unique"
)

// selectors is a sorted list of selectors. Most nodes have one of few lists, so equal lists are one in memory.
// The zero value is the empty list.
type selectors struct{ text unique.Handle[string] }

func selectorsOf(ids []uint32) selectors {
	if len(ids) == 0 {
		return selectors{}
	}
	return selectors{unique.Make(string(appendSet(nil, ids)))}
}

func (l selectors) empty() bool { return l == selectors{} }

// key is the list as the interner of match sets has it.
func (l selectors) key() string {
	if l.empty() {
		return ""
	}
	return l.text.Value()
}

// appendTo appends the list to ids.
func (l selectors) appendTo(ids []uint32) []uint32 {
	for key := l.key(); key != ""; key = key[4:] {
		ids = append(ids, binary.LittleEndian.Uint32([]byte(key[:4])))
	}
	return ids
}

// with returns the list with one more selector.
func (l selectors) with(id uint32) selectors {
	ids := l.appendTo(nil)
	i, found := slices.BinarySearch(ids, id)
	if found {
		return l
	}
	return selectorsOf(slices.Insert(ids, i, id))
}

// without returns the list with one selector less.
func (l selectors) without(id uint32) selectors {
	ids := l.appendTo(nil)
	i, found := slices.BinarySearch(ids, id)
	if !found {
		return l
	}
	return selectorsOf(slices.Delete(ids, i, i+1))
}

// editor changes the lists of many nodes in the same way, and remembers what came of the last one.
type editor struct {
	edit   func(selectors) selectors
	before selectors
	after  selectors
	used   bool
}

func (e *editor) apply(l *selectors) {
	if !e.used || e.before != *l {
		e.before, e.after, e.used = *l, e.edit(*l), true
	}
	*l = e.after
}
