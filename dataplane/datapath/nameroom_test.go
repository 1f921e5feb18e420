package datapath

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/nameward/nameward/dataplane/enforce"
)

// ofCells is a name that takes so many cells, another for each number.
func ofCells(cells, number int) string {
	name := fmt.Sprintf("n%07d.example", number)
	for cellsOfName(name) < cells {
		name = strings.Repeat("a", 15) + "." + name
	}
	return name
}

// usual is a name alike those of policies: few take more than a cell.
func usual(random *rand.Rand, number int) string {
	name := fmt.Sprintf("%s%d.%s", strings.Repeat("x", random.IntN(12)), number, []string{"com", "example.net", "co.uk"}[random.IntN(3)])
	if random.IntN(100) == 0 {
		name = strings.Repeat("long-label.", 1+random.IntN(6)) + name
	}
	return name
}

func (x *nameIndex) checkRoom(t interface{ Fatalf(string, ...any) }) {
	owned := make([]*nameEntry, len(x.owners))
	for e := range x.all() {
		for i := range e.cells() {
			if owned[int(e.cell)+i] != nil {
				t.Fatalf("cell %d is %s's and %s's", int(e.cell)+i, owned[int(e.cell)+i].name, e.name)
			}
			owned[int(e.cell)+i] = e
		}
	}
	for cell, e := range x.owners {
		if e != owned[cell] {
			t.Fatalf("cell %d: owner %v, used by %v", cell, e, owned[cell])
		}
		if free := x.room.isFree(uint32(cell)); free != (e == nil) {
			t.Fatalf("cell %d: free %v, owner %v", cell, free, e)
		}
	}
	if used := len(x.owners) - x.room.left; used != len(owned)-count(owned, nil) {
		t.Fatalf("%d cells are counted as taken, %d are", used, len(owned)-count(owned, nil))
	}
}

func count[T comparable](list []T, of T) (n int) {
	for _, one := range list {
		if one == of {
			n++
		}
	}
	return n
}

// TestCellsAreOfOneName: names of all lengths come, many at once or one, and go. No two share a cell, and what one
// leaves is free again.
func TestCellsAreOfOneName(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cells := rapid.Uint32Range(1, 400).Draw(t, "cells")
		x := newNameIndex(testKey, 100, cells)
		number := 0
		for range rapid.IntRange(1, 40).Draw(t, "changes") {
			var names []string
			needed := 0
			for range rapid.IntRange(1, 60).Draw(t, "names") {
				names = append(names, ofCells(rapid.SampledFrom([]int{1, 1, 1, 1, 2, 3, 5}).Draw(t, "length"), number))
				needed += cellsOfName(names[len(names)-1])
				number++
			}
			empty := x.room.left == int(cells)
			_, err := x.addAll(slices.Clone(names))
			if err != nil && (!errors.Is(err, enforce.ErrFull) || empty && needed <= int(cells)) {
				t.Fatalf("%d cells are needed of %d, empty %v: %v", needed, cells, empty, err)
			}
			for _, name := range names {
				if (x.find(name) != nil) != (err == nil) {
					t.Fatalf("%s is there or not, unlike the error says: %v", name, err)
				}
			}
			x.checkRoom(t)
			for e := range x.all() {
				if rapid.IntRange(0, 3).Draw(t, "goes") == 0 {
					x.remove(e)
				}
			}
			x.checkRoom(t)
		}
	})
}

// TestTableIsFilledToItsLastCell: one after the other, whatever their homes, as many names find room as there are
// cells; and all at once, whatever their lengths.
func TestTableIsFilledToItsLastCell(t *testing.T) {
	const patterns = 8192
	cells := nameCells(patterns)
	x := newNameIndex(testKey, indexBuckets(patterns), cells)
	for i := range int(cells) {
		if _, err := x.addAll([]string{ofCells(1, i)}); err != nil {
			t.Fatalf("name %d of %d: %v", i, cells, err)
		}
	}
	x.checkRoom(t)
	if _, err := x.addAll([]string{ofCells(1, int(cells))}); !errors.Is(err, enforce.ErrFull) {
		t.Errorf("one name more: %v, want ErrFull", err)
	}

	for _, lengths := range [][]int{{5}, {2}, {1, 5}, {1, 1, 1, 1, 1, 1, 1, 2, 3, 4, 5}} {
		x := newNameIndex(testKey, indexBuckets(patterns), cells)
		var names []string
		left := int(cells)
		for i := 0; left > 0; i++ {
			names = append(names, ofCells(min(lengths[i%len(lengths)], left), i))
			left -= cellsOfName(names[i])
		}
		if _, err := x.addAll(names); err != nil {
			t.Errorf("%d names of %v cells: %v", len(names), lengths, err)
		}
		x.checkRoom(t)
	}
}

// TestGatheredNamesLeaveCellsInARow: names move to cells that were free, and what they leave is free when it is given
// back.
func TestGatheredNamesLeaveCellsInARow(t *testing.T) {
	const patterns = 8192
	x := newNameIndex(testKey, indexBuckets(patterns), nameCells(patterns))
	for i := range patterns {
		if _, err := x.addAll([]string{ofCells(1, i)}); err != nil {
			t.Fatal(err)
		}
	}
	var long []string
	for i := range x.room.left / 5 {
		long = append(long, ofCells(5, patterns+i))
	}
	if _, err := x.addAll(long); !errors.Is(err, errScattered) || !errors.Is(err, enforce.ErrFull) {
		t.Fatalf("%d names of 5 cells, with %d cells free here and there: %v", len(long), x.room.left, err)
	}
	before := slices.Clone(x.owners)
	moved, buckets, left := x.gather()
	if len(moved) == 0 || len(buckets) == 0 || len(left) != len(moved) {
		t.Errorf("%d names moved, %d buckets, %d cells left", len(moved), len(buckets), len(left))
	}
	for _, e := range moved {
		if before[e.cell] != nil {
			t.Errorf("%s moved to cell %d of %s", e.name, e.cell, before[e.cell].name)
		}
	}
	for _, cell := range left {
		if x.owners[cell] != nil {
			t.Errorf("cell %d, which a name left, is of %s before it was given back", cell, x.owners[cell].name)
		}
		x.room.give(cell)
	}
	x.checkRoom(t)
	for i := range patterns {
		if x.find(ofCells(1, i)) == nil {
			t.Errorf("%s is lost", ofCells(1, i))
		}
	}
	if _, err := x.addAll(long); err != nil {
		t.Error(err)
	}
	x.checkRoom(t)
}

// TestLongNamesFindRoomAmongShortOnes: a rule set of long names for which there is room here and there is put in
// force, and what the node knew before stays known.
func TestLongNamesFindRoomAmongShortOnes(t *testing.T) {
	f := newFixture(t, func(cfg *Config) { cfg.MaxPatterns = 512 })
	var names []string
	for i := range 512 {
		names = append(names, ofCells(1, i))
	}
	f.apply(t, hostRules(t, allow(names...)))
	for i := range 37 { // of 5 cells each, of 192 that are left
		names = append(names, ofCells(5, 1000+i))
	}
	f.apply(t, hostRules(t, allow(names...)))
	f.names.checkRoom(t)
	asked := 0
	open := func() {
		t.Helper()
		for _, name := range names {
			f.resolve(t, name, 300, name+". 300 IN A "+rotated(asked))
			f.wantOpen(t, true, rotated(asked))
			asked++
		}
	}
	open()
	f.restart(t)
	open()
	f.names.checkRoom(t)
}

// TestNamesAreAtHome: the programs look for a name's cell at home before they know where it is.
func TestNamesAreAtHome(t *testing.T) {
	const room = 131_072
	for _, c := range []struct {
		names              int
		atOnce, one, paged float64
	}{
		{100, 0.99, 0.99, 1}, {10_000, 0.96, 0.96, 1}, {65_536, 0.80, 0.77, 1}, {100_000, 0.72, 0.66, 0.999}, {room, 0.66, 0.56, 0.98},
	} {
		random := rand.New(rand.NewPCG(1, 2))
		var names []string
		for i := range c.names {
			names = append(names, usual(random, i))
		}
		atOnce := newNameIndex(testKey, indexBuckets(room), nameCells(room))
		if _, err := atOnce.addAll(slices.Clone(names)); err != nil {
			t.Fatal(err)
		}
		one := newNameIndex(testKey, indexBuckets(room), nameCells(room))
		for _, name := range names {
			if _, err := one.addAll([]string{name}); err != nil {
				t.Fatal(err)
			}
		}
		for _, way := range []struct {
			how   string
			index *nameIndex
			least float64
		}{{"at once", atOnce, c.atOnce}, {"one after the other", one, c.one}} {
			home, paged := way.index.sharesAtHome()
			t.Logf("%d names %s: %.3f at home, %.4f there or in the same page", c.names, way.how, home, paged)
			if home < way.least || paged < c.paged {
				t.Errorf("%d names %s: %.3f at home, want %.3f; %.4f in the same page, want %.4f", c.names, way.how, home, way.least, paged, c.paged)
			}
		}
	}
}

// sharesAtHome are the shares of names that are at home, and there or in the page of it.
func (x *nameIndex) sharesAtHome() (home, paged float64) {
	var all int
	for e := range x.all() {
		at := x.room.home(x.key.SuffixHashes(wireText(e.name))[0])
		all++
		if at == e.cell {
			home++
		}
		if at/pageCells == e.cell/pageCells {
			paged++
		}
	}
	return home / float64(all), paged / float64(all)
}

// TestNamesAnywhereAreFound: the tables of a release that knew no homes are used as they are.
func TestNamesAnywhereAreFound(t *testing.T) {
	f := newFixture(t)
	var names []string
	for i := range 500 {
		names = append(names, ofCells(1+i%2, i))
	}
	buckets, _, err := f.names.addBy(names, f.names.room.packed())
	if err == nil {
		err = f.names.writeBuckets(buckets)
	}
	if err != nil {
		t.Fatal(err)
	}
	if home, _ := f.names.sharesAtHome(); home > 0.1 {
		t.Fatalf("%.2f of the names are at home", home)
	}
	asked := 0
	open := func(name string) {
		t.Helper()
		asked++
		f.wantOpen(t, false, rotated(asked))
		f.resolve(t, name, 300, name+". 300 IN A "+rotated(asked))
		f.wantOpen(t, true, rotated(asked))
	}
	f.apply(t, hostRules(t, allow(names...)))
	open(names[7])
	f.restart(t)
	open(names[8])
	more := append(slices.Clone(names), "one.more.test")
	f.apply(t, hostRules(t, allow(more...)))
	f.names.checkRoom(t)
	open(names[9])
	open("one.more.test")
	hash := f.names.key.SuffixHashes(wireText("one.more.test"))[0]
	if f.names.owners[f.names.room.home(hash)] == nil {
		t.Error("the name that was added could be at home, and is not")
	}
	settings, err := f.kernel.settings()
	if err != nil || settings.NameCells != f.names.room.cells {
		t.Errorf("the programs are told of %d cells, and there are %d: %v", settings.NameCells, f.names.room.cells, err)
	}
}
