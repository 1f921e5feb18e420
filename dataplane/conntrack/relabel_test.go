package conntrack

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/api/ruleset"
)

// TestRelabelSaysWhatBecameOfEach: of many connections in one call, those that are gone and those without room for a
// label are told from those that have it.
func TestRelabelSaysWhatBecameOfEach(t *testing.T) {
	m := newMachine(t, false)
	const without, count = 10, inOneCall + 20
	at := func(i int) ruleset.Connection { return tcp(fmt.Sprintf("10.1.2.%d", i+1), "198.51.100.1", 443) }
	for i := range count {
		if i == without {
			askForLabels(t) // none before has room
		}
		m.Open(at(i))
	}
	changes := make([]relabelling, count)
	if _, err := m.native.list(func(e *entry) {
		own := *e
		changes[e.original.source.Addr().As4()[3]-1] = relabelling{entry: &own, set: []int{cutLabel}}
	}); err != nil {
		t.Fatal(err)
	}
	gone := []int{without, inOneCall - 1, inOneCall, count - 1}
	for _, i := range gone {
		if was, err := m.native.forget(changes[i].entry); err != nil || !was {
			t.Fatalf("forget connection %d: %t, %v", i, was, err)
		}
	}
	for i, err := range m.native.relabel(changes) {
		var want error
		switch {
		case slices.Contains(gone, i):
			want = unix.ENOENT
		case i < without:
			want = unix.ENOSPC
		}
		if !errors.Is(err, want) {
			t.Errorf("connection %d: got %v, want %v", i, err, want)
		}
		if cut, _, exists := m.labels(at(i)); cut != (want == nil) || exists == slices.Contains(gone, i) {
			t.Errorf("connection %d: cut %t, exists %t", i, cut, exists)
		}
	}
}
