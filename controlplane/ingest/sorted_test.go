package ingest

import (
	"cmp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// byLabels says what compareNames promises, label by label.
func byLabels(a, b string) int {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	slices.Reverse(x)
	slices.Reverse(y)
	return slices.Compare(x, y)
}

func TestNamesAreComparedByLabelsFromTheRight(t *testing.T) {
	name := rapid.StringMatching(`(a|b|ab|ba|-|a-b)(\.(a|b|ab|ba|-|a-b)){0,3}`)
	rapid.Check(t, func(rt *rapid.T) {
		a, b := name.Draw(rt, "a"), name.Draw(rt, "b")
		if got, want := compareNames(a, b), byLabels(a, b); got != want {
			rt.Errorf("compareNames(%q, %q) = %d, want %d", a, b, got, want)
		}
	})
}

func TestSpanCounts(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := sorted[int]{compare: cmp.Compare[int]}
		// Enough for several chunks.
		step := rapid.IntRange(1, 3).Draw(rt, "step")
		all := rapid.IntRange(0, 3*chunkLimit).Draw(rt, "length")
		for i := range all {
			s.put(i * step)
		}
		from := rapid.IntRange(-2, all*step+2).Draw(rt, "from")
		end := rapid.IntRange(from, all*step+2).Draw(rt, "end")
		want := 0
		for i := range all {
			if v := i * step; v >= from && v < end {
				want++
			}
		}
		if got := s.span(from, func(v int) bool { return v >= from && v < end }); got != want {
			rt.Errorf("span of %d with step %d from %d to %d: %d, want %d", all, step, from, end, got, want)
		}
	})
}
