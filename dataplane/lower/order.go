package lower

import (
	"slices"
	"strings"
)

// order has the nodes sorted from their last labels on, each right before those below it. It is brought up to
// date when it is asked; the root is not in it.
type order struct {
	sorted []*node
	added  []*node // not sorted yet
	gone   bool    // some have nothing to say any more
}

// fewAdded is up to how many nodes each is put where a search finds its place: sorting in many compares all nodes
// with them.
const fewAdded = 32

func (o *order) add(n *node) { o.added = append(o.added, n) }

// settle sorts in what was added, and leaves out what is gone.
func (o *order) settle(stays func(*node) bool) {
	if o.gone {
		o.sorted, o.added = slices.DeleteFunc(o.sorted, func(n *node) bool { return !stays(n) }), slices.DeleteFunc(o.added, func(n *node) bool { return !stays(n) })
		o.gone = false
	}
	if len(o.added) <= fewAdded {
		for _, n := range o.added {
			i, _ := o.find(n.name.String())
			o.sorted = slices.Insert(o.sorted, i, n)
		}
	} else {
		o.merge()
	}
	o.added = nil
}

// merge sorts in what was added, from the back, so that what is sorted moves once.
func (o *order) merge() {
	slices.SortFunc(o.added, func(a, b *node) int { return compareFromEnd(a.name.String(), b.name.String()) })
	old, rest := len(o.sorted), o.added
	o.sorted = append(o.sorted, o.added...)
	for at := len(o.sorted); len(rest) > 0; {
		at--
		if last := rest[len(rest)-1]; old == 0 || compareFromEnd(o.sorted[old-1].name.String(), last.name.String()) < 0 {
			o.sorted[at], rest = last, rest[:len(rest)-1]
		} else {
			old--
			o.sorted[at] = o.sorted[old]
		}
	}
}

func (o *order) find(name string) (int, bool) {
	return slices.BinarySearchFunc(o.sorted, name, func(n *node, name string) int { return compareFromEnd(n.name.String(), name) })
}

// below calls f for every node below a name.
func (o *order) below(base string, f func(*node)) {
	i, found := o.find(base)
	if found {
		i++
	}
	for ; i < len(o.sorted); i++ {
		name := o.sorted[i].name.String()
		if len(name) <= len(base) || !strings.HasSuffix(name, base) || name[len(name)-len(base)-1] != '.' {
			return
		}
		f(o.sorted[i])
	}
}

// compareFromEnd compares names byte by byte from their ends; a dot is below all else.
func compareFromEnd(a, b string) int {
	shorter := min(len(a), len(b))
	for i := 1; i <= shorter; i++ {
		x, y := a[len(a)-i], b[len(b)-i]
		if x == y {
			continue
		}
		if x == '.' || y != '.' && x < y {
			return -1
		}
		return 1
	}
	return len(a) - len(b)
}
