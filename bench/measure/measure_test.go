package measure

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestInterleave(t *testing.T) {
	order := ""
	variant := func(name string, value float64) Variant {
		return Variant{name, func(context.Context) (float64, error) {
			order += name
			value++
			return value, nil
		}}
	}
	series, err := Interleave(t.Context(), 2, variant("a", 0), variant("b", 10))
	if err != nil {
		t.Fatal(err)
	}
	if want := "ab" + "ba" + "ab"; order != want {
		t.Errorf("order: %s, want %s", order, want)
	}
	if !slices.Equal(series[0].Values, []float64{2, 3}) || !slices.Equal(series[1].Values, []float64{12, 13}) {
		t.Errorf("series: %v; the first round is not to count", series)
	}
}

func TestInterleaveNamesWhatFailed(t *testing.T) {
	broken := errors.New("broken")
	_, err := Interleave(t.Context(), 1, Variant{"ipset", func(context.Context) (float64, error) { return 0, broken }})
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "ipset") {
		t.Errorf("error: %v", err)
	}
}

func TestSeries(t *testing.T) {
	ours, theirs := Series{"ours", []float64{4, 2, 6, 8, 10}}, Series{"theirs", []float64{2, 2, 2, 2, 5}}
	if got := ours.Median(); got != 6 {
		t.Errorf("median: %v", got)
	}
	if low, high := ours.Spread(); low != 4 || high != 8 {
		t.Errorf("spread: %v to %v", low, high)
	}
	if got := ours.RatioTo(theirs).Values; !slices.Equal(got, []float64{2, 1, 3, 4, 2}) {
		t.Errorf("ratios: %v", got)
	}
	if got := ours.Over(theirs).Values; !slices.Equal(got, []float64{2, 0, 4, 6, 5}) {
		t.Errorf("differences: %v", got)
	}
}
