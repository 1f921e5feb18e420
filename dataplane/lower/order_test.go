package lower

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/nameward/nameward/api/domain"
)

// However many nodes come at once, they end up in order, and what is below a name is found.
func TestOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var o order
		known := map[string]*node{}
		for range rapid.IntRange(1, 4).Draw(t, "rounds") {
			for range rapid.SampledFrom([]int{1, fewAdded, fewAdded + 1, 3 * fewAdded}).Draw(t, "added") {
				text := fmt.Sprintf("host%d.site%d.example", rapid.IntRange(0, 200).Draw(t, "host"), rapid.IntRange(0, 3).Draw(t, "site"))
				if known[text] != nil {
					continue
				}
				name, err := domain.ParseName(text)
				if err != nil {
					t.Fatal(err)
				}
				known[text] = &node{name: name}
				o.add(known[text])
			}
			for text := range known {
				if rapid.IntRange(0, 9).Draw(t, "goes") == 0 {
					delete(known, text)
					o.gone = true
				}
			}
			o.settle(func(n *node) bool { return known[n.name.String()] == n })
			if len(o.sorted) != len(known) || !slices.IsSortedFunc(o.sorted, func(a, b *node) int { return compareFromEnd(a.name.String(), b.name.String()) }) {
				t.Fatalf("%d nodes in order of %d: %v", len(o.sorted), len(known), o.sorted)
			}
			below := 0
			o.below("site1.example", func(*node) { below++ })
			want := 0
			for text := range known {
				if len(text) > len(".site1.example") && text[len(text)-len(".site1.example"):] == ".site1.example" {
					want++
				}
			}
			if below != want {
				t.Fatalf("%d names below, want %d", below, want)
			}
		}
	})
}
