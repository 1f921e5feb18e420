package observe

// expiryHeap has the entry that expires first on top.
type expiryHeap []*entry

func (h expiryHeap) Len() int           { return len(h) }
func (h expiryHeap) Less(i, j int) bool { return h[i].expiresAt < h[j].expiresAt }

func (h expiryHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].position, h[j].position = int32(i), int32(j) //nolint:gosec // bounded by the table
}

func (h *expiryHeap) Push(x any) {
	e := x.(*entry)
	e.position = int32(len(*h)) //nolint:gosec // bounded by the table
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
func (h expiryHeap) each(before instant, f func(*entry)) {
	var visit func(int)
	visit = func(i int) {
		if i >= len(h) || h[i].expiresAt >= before {
			return
		}
		f(h[i])
		visit(2*i + 1)
		visit(2*i + 2)
	}
	visit(0)
}
