package observe

import "time"

// expiryHeap has the entry that expires first on top.
type expiryHeap []*entry

func (h expiryHeap) Len() int           { return len(h) }
func (h expiryHeap) Less(i, j int) bool { return h[i].mapping.ExpiresAt.Before(h[j].mapping.ExpiresAt) }

func (h expiryHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].position, h[j].position = i, j
}

func (h *expiryHeap) Push(x any) {
	e := x.(*entry)
	e.position = len(*h)
	*h = append(*h, e)
}

func (h *expiryHeap) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return e
}

// each calls f for the entries that expire before a time; a branch of the heap ends at the first that
// does not.
func (h expiryHeap) each(before time.Time, f func(*entry)) {
	var visit func(int)
	visit = func(i int) {
		if i >= len(h) || !h[i].mapping.ExpiresAt.Before(before) {
			return
		}
		f(h[i])
		visit(2*i + 1)
		visit(2*i + 2)
	}
	visit(0)
}
