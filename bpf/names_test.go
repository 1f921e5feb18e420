package bpf_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
)

// Names go on in further cells: each byte of each cell counts.
func TestLongNames(t *testing.T) {
	e := newExchange(t)
	label := strings.Repeat("a", 63)
	longest := strings.Join([]string{label, label, label, strings.Repeat("b", 61)}, ".") // 255 bytes in wire form
	for cut := range 6 {
		name := longest[cut*41:]
		name = strings.TrimPrefix(name, ".")
		e.reset(t)
		e.Pattern(0, name, 7, 0)
		e.resolve(name, name+". 60 IN A 192.0.2.1")
		if !e.sets("192.0.2.1")[7] {
			t.Errorf("%d bytes: not learned", len(name))
		}
		for _, at := range []int{0, 42, 43, 44, 106, 107, 108, len(name) - 1} {
			if at >= len(name) || name[at] == '.' {
				continue
			}
			e.reset(t)
			other := name[:at] + "c" + name[at+1:]
			e.resolve(other, other+". 60 IN A 192.0.2.1")
			if sets := e.sets("192.0.2.1"); len(sets) != 0 {
				t.Errorf("%d bytes, byte %d differs: learned for %v", len(name), at, sets)
			}
		}
		e.Pattern(0, name, 0, 0)
	}
}

// A nearly full index: names are in neighbouring buckets, and the last bucket's neighbour is the first.
func TestNeighbouringBuckets(t *testing.T) {
	e := &exchange{Datapath: bpftest.Load(t, 4), t: t, client: source, resolver: source}
	e.trust(e.resolver)
	const names = 30 // of 32 slots
	for i := range uint32(names) {
		e.Pattern(0, fmt.Sprintf("n%d.test", i), 100+i, 0)
	}
	for i := range uint32(names) {
		e.Forget(e.Mappings)
		name := fmt.Sprintf("n%d.test", i)
		e.resolve(name, name+". 60 IN A 192.0.2.1")
		if sets := e.sets("192.0.2.1"); len(sets) != 1 || !sets[100+i] {
			t.Errorf("%s: learned for %v", name, sets)
		}
	}
	if got := e.resolve("other.test", "other.test. 60 IN A 192.0.2.1"); got[bpf.DatapathCounterCOUNTER_UNMATCHED] != 1 {
		t.Errorf("a name that is not in a full index: counted %v", got)
	}
}

// A cell that refers to a common match set by its place stands for what is there, in each generation by itself.
func TestCommonMatchSets(t *testing.T) {
	e := newExchange(t)
	const last = 15
	first := e.Common(0, 1, 41)
	e.Pattern(0, "a.test", first, e.Common(0, last, 42))
	e.Pattern(1, "a.test", 43, e.Common(1, 1, 44))
	want := func(name string, sets ...uint32) {
		t.Helper()
		e.Forget(e.Mappings)
		e.resolve(name, name+". 60 IN A 192.0.2.1")
		got := e.sets("192.0.2.1")
		for _, set := range sets {
			if !got[set] {
				t.Errorf("%s: learned for %v, want %d", name, got, set)
			}
		}
		if len(got) != len(sets) {
			t.Errorf("%s: learned for %v, want %v", name, got, sets)
		}
	}
	want("a.test", 41)
	want("b.a.test", 42)
	e.Put(e.State, uint32(0), bpf.DatapathState{Active: 0, Learning: 1})
	want("a.test", 41, 43)
	want("b.a.test", 42, 44)
	e.Common(0, 1, 45)
	e.Common(1, 1, 46)
	want("a.test", 45, 43)
	want("b.a.test", 42, 46)
	e.Put(e.State, uint32(0), bpf.DatapathState{Active: 1, Learning: 1})
	want("b.a.test", 46)
	e.Common(1, 1, 0)
	want("b.a.test")
}
