package datapath

import (
	"fmt"
	"slices"

	"github.com/nameward/nameward/dataplane/enforce"
)

// errScattered says that cells enough are free, and too few of them in a row.
var errScattered = fmt.Errorf("free cells are scattered: %w", enforce.ErrFull)

// addAll finds places for names, all or none, and returns the buckets to write. Who can be at home is placed before
// others take places, and names of more cells before those of fewer. Where too few cells in a row are free for that,
// all are placed without regard to their homes. The names get another order.
func (x *nameIndex) addAll(names []string) ([]uint32, error) {
	slices.SortStableFunc(names, func(a, b string) int { return cellsOfName(b) - cellsOfName(a) })
	free := x.room.left
	for _, name := range names {
		if free -= cellsOfName(name); free < 0 {
			return nil, fmt.Errorf("place name %s: all %d cells of name_cells are taken: %w", name, len(x.owners), enforce.ErrFull)
		}
	}
	buckets, left, err := x.addBy(names, x.room.atHome, x.room.near)
	if err == nil && len(left) > 0 {
		buckets, left, err = x.addBy(names, x.room.packed())
	}
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("place name %s: no %d cells of name_cells in a row are free: %w", left[0], cellsOfName(left[0]), errScattered)
	}
	slices.Sort(buckets)
	return slices.Compact(buckets), err
}

// addBy adds names by one search after the other, and returns the buckets to write. If some names are left by the last
// one, these are returned, and none is added.
func (x *nameIndex) addBy(names []string, searches ...roomSearch) (buckets []uint32, left []string, err error) {
	var added []string
	undo := func() {
		for _, name := range added {
			x.undo(name)
		}
	}
	for _, where := range searches {
		todo := names
		names = nil
		for _, name := range todo {
			bucket, ok, err := x.add(name, where)
			if err != nil {
				undo()
				return nil, nil, err
			}
			if !ok {
				names = append(names, name)
				continue
			}
			added, buckets = append(added, name), append(buckets, bucket)
		}
	}
	if len(names) > 0 {
		undo()
		return nil, names, nil
	}
	return buckets, nil, nil
}
