package ingest

import (
	"iter"
	"slices"
	"sort"
)

// chunkLimit bounds what one insertion moves: a chunk of pointers of at most 4 KiB.
const chunkLimit = 512

// sorted is an ordered set as a list of sorted chunks: a binary search finds the chunk, another the place
// in it. It needs little over a pointer an element and no balancing.
type sorted[T any] struct {
	compare func(a, b T) int
	// chunks are never empty.
	chunks [][]T
	length int
}

// find returns the chunk and the place where item is, or belongs.
func (s *sorted[T]) find(item T) (chunk, place int, found bool) {
	chunk, _ = slices.BinarySearchFunc(s.chunks, item, func(c []T, item T) int { return s.compare(c[len(c)-1], item) })
	if chunk == len(s.chunks) {
		return chunk, 0, false
	}
	place, found = slices.BinarySearchFunc(s.chunks[chunk], item, s.compare)
	return chunk, place, found
}

// put inserts item, in place of one that compares equal.
func (s *sorted[T]) put(item T) {
	i, place, found := s.find(item)
	switch {
	case found:
		s.chunks[i][place] = item
		return
	case len(s.chunks) == 0:
		s.chunks = [][]T{{item}}
		s.length++
		return
	case i == len(s.chunks):
		i, place = i-1, len(s.chunks[i-1])
	}
	s.length++
	s.chunks[i] = slices.Insert(s.chunks[i], place, item)
	if chunk := s.chunks[i]; len(chunk) == chunkLimit {
		// The upper half is a copy: the halves must not grow into each other.
		upper := append(make([]T, 0, chunkLimit), chunk[chunkLimit/2:]...)
		clear(chunk[chunkLimit/2:])
		s.chunks[i] = chunk[:chunkLimit/2]
		s.chunks = slices.Insert(s.chunks, i+1, upper)
	}
}

// remove deletes what compares equal to item.
func (s *sorted[T]) remove(item T) {
	i, place, found := s.find(item)
	if !found {
		return
	}
	s.length--
	if s.chunks[i] = slices.Delete(s.chunks[i], place, place+1); len(s.chunks[i]) == 0 {
		s.chunks = slices.Delete(s.chunks, i, i+1)
	}
}

// span returns how many elements from item on are within, which all of them are up to one and none behind it.
func (s *sorted[T]) span(item T, within func(T) bool) int {
	chunk, place, _ := s.find(item)
	if chunk == len(s.chunks) {
		return 0
	}
	// The last chunk that begins with one of them holds the end; this one may begin before item.
	last := chunk + sort.Search(len(s.chunks)-chunk-1, func(i int) bool { return !within(s.chunks[chunk+1+i][0]) })
	from, count := place, 0
	for ; chunk < last; chunk++ {
		count += len(s.chunks[chunk]) - from
		from = 0
	}
	return count + sort.Search(len(s.chunks[last])-from, func(i int) bool { return !within(s.chunks[last][from+i]) })
}

// from yields the elements that are not before item, in order.
func (s *sorted[T]) from(item T) iter.Seq[T] {
	return func(yield func(T) bool) {
		i, place, _ := s.find(item)
		for ; i < len(s.chunks); i, place = i+1, 0 {
			for _, element := range s.chunks[i][place:] {
				if !yield(element) {
					return
				}
			}
		}
	}
}
