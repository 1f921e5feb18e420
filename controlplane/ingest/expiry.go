package ingest

import "container/heap"

// entry is a mapping in the table. The mapping is replaced, never edited.
type entry struct {
	*Mapping
	// place is where the entry is in the heap.
	place int
	// report is the number of the node's snapshot in which the mapping last occurred.
	report uint64
}

// expiries is a heap: the entry that ends first is at its root.
type expiries []*entry

// Len is of heap.Interface, as are the others.
func (e expiries) Len() int { return len(e) }

// Less orders by expiry.
func (e expiries) Less(i, j int) bool { return e[i].Expires.Before(e[j].Expires) }

// Swap keeps the places true.
func (e expiries) Swap(i, j int) {
	e[i], e[j] = e[j], e[i]
	e[i].place, e[j].place = i, j
}

// Push appends an *entry.
func (e *expiries) Push(x any) {
	added := x.(*entry) //nolint:forcetypeassert // only entries are pushed
	added.place = len(*e)
	*e = append(*e, added)
}

// Pop removes the last.
func (e *expiries) Pop() any {
	last := (*e)[len(*e)-1]
	(*e)[len(*e)-1] = nil
	*e = (*e)[:len(*e)-1]
	return last
}

var _ heap.Interface = (*expiries)(nil)
