package datapath

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/dataplane/enforce"
)

var testKey = bpf.HashKey{0x0123456789abcdef, 0xfedcba9876543210, 0x0f1e2d3c4b5a6978, 0x8796a5b4c3d2e1f0}

// find looks a name up as the programs do: bucket by bucket, up to the first with a free slot.
func find(key bpf.HashKey, buckets []bpf.DatapathNameBucket, name string) (cell uint32, found bool) {
	hash := key.SuffixHashes(wireText(name))[0]
	for probe := range uint32(bucketProbes) {
		full := true
		for _, slot := range buckets[(uint32(uint64(uint32(hash))*uint64(len(buckets))>>32)+probe)%uint32(len(buckets))].Slots {
			if slot == 0 {
				full = false
			} else if (slot^hash)>>24 == 0 {
				return uint32(slot&slotCellMask) - 1, true
			}
		}
		if !full {
			return 0, false
		}
	}
	return 0, false
}

// Names come and go in an index that is nearly full. At every moment, between any two writes of a
// bucket, each name that is in it is found.
func TestEveryNameIsFoundWhileOthersComeAndGo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const buckets = 11 // more than a hash leads to
		x := newNameIndex(testKey, buckets, 80)
		written := make([]bpf.DatapathNameBucket, buckets)
		check := func() {
			for e := range x.all() {
				if cell, found := find(testKey, written, e.name); !found || cell != e.cell {
					t.Fatalf("%s: found %v in cell %d, want cell %d", e.name, found, cell, e.cell)
				}
			}
		}
		for range 200 {
			name := fmt.Sprintf("n%d.example", rapid.IntRange(0, 70).Draw(t, "name"))
			if rapid.IntRange(0, 9).Draw(t, "long") == 0 {
				name = strings.Repeat("long.", 20) + name
			}
			if e := x.find(name); e != nil {
				for _, bucket := range x.remove(e) {
					written[bucket] = x.buckets[bucket]
					check()
				}
				continue
			}
			buckets, err := x.addAll([]string{name})
			if errors.Is(err, enforce.ErrFull) {
				continue
			}
			for _, bucket := range buckets {
				written[bucket] = x.buckets[bucket]
			}
			check()
		}
		for e := range x.all() {
			for _, bucket := range x.remove(e) {
				written[bucket] = x.buckets[bucket]
				check()
			}
		}
		for i, owner := range x.owners {
			if owner != nil {
				t.Fatalf("cell %d is taken, though no name is left", i)
			}
		}
	})
}

func TestIndexIsFull(t *testing.T) {
	x := newNameIndex(testKey, 1<<10, 4)
	var err error
	for i := range 5 {
		_, err = x.addAll([]string{fmt.Sprintf("n%d.example", i)})
	}
	if !errors.Is(err, enforce.ErrFull) || !strings.Contains(err.Error(), "n4.example") {
		t.Errorf("fifth name in four cells: got %v, want ErrFull that names it", err)
	}
}

// Whatever the hash key of a node, its index has a place for each name that its cells have room for.
func TestIndexHoldsWhatTheCellsHold(t *testing.T) {
	const patterns = 131_072
	for seed := range uint64(4) {
		key := testKey
		for i := range key {
			key[i] = rand.New(rand.NewPCG(seed, uint64(i))).Uint64() | 1
		}
		x := newNameIndex(key, indexBuckets(patterns), nameCells(patterns))
		names := make([]string, nameCells(patterns))
		for i := range names {
			names[i] = fmt.Sprintf("n%06d.example", i)
		}
		if _, err := x.addAll(names); err != nil {
			t.Fatalf("key %d: %v", seed, err)
		}
	}
}

// The policy server lets a node have so many patterns by the room that it thinks a name takes.
func TestRoomIsWhatNamesTake(t *testing.T) {
	long := strings.Repeat("abcdefg.", 31) + "abcde"
	for length := 1; length <= len(long); length++ {
		name := long[len(long)-length:]
		pattern, err := domain.ParsePattern("*." + name)
		if err != nil {
			continue // begins with a dot, or is too long with the label before it
		}
		if got, want := ruleset.Room(pattern), cellsOf(len(wireText(name))); got != want {
			t.Errorf("a name of %d characters: room %d, takes %d cells", length, got, want)
		}
	}
}

func TestTextOfWireForm(t *testing.T) {
	for _, name := range []string{"a", "a.b", "example.com", strings.Repeat("abcdefg.", 30) + "abcdefg"} {
		if got, ok := textOf(wireText(name)); !ok || got != name {
			t.Errorf("%s: got %s, %v", name, got, ok)
		}
	}
	for _, wire := range [][]byte{{}, {0}, {2, 'a'}, {1, 'a', 0}, {1, 'a', 3, 'b'}} {
		if got, ok := textOf(wire); ok {
			t.Errorf("%v: got %q, want none", wire, got)
		}
	}
}
