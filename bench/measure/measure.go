// Package measure takes samples of variants by turns, so that what disturbs the machine disturbs all of them,
// and says how they compare.
package measure

import (
	"context"
	"fmt"
	"slices"
)

// A Variant is one way of doing a work: ours, or a baseline. Its samples are in one unit.
type Variant struct {
	Name   string
	Sample func(ctx context.Context) (float64, error)
}

// A Series is what was sampled of a variant, in order: the values of the same index were taken in the same
// round.
type Series struct {
	Name   string
	Values []float64
}

// Interleave samples every variant once a round. The first round warms up and does not count. Each other
// round begins with the next variant, so that none is always first.
func Interleave(ctx context.Context, rounds int, variants ...Variant) ([]Series, error) {
	series := make([]Series, len(variants))
	for i, v := range variants {
		series[i].Name = v.Name
	}
	for round := range rounds + 1 {
		for i := range variants {
			at := (i + round) % len(variants)
			value, err := variants[at].Sample(ctx)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", variants[at].Name, err)
			}
			if round > 0 {
				series[at].Values = append(series[at].Values, value)
			}
		}
	}
	return series, nil
}

// Quantile gives the value below which a share of the values lies, from 0 to 1. There is at least one.
func (s Series) Quantile(share float64) float64 {
	sorted := slices.Sorted(slices.Values(s.Values))
	return sorted[int(share*float64(len(sorted)-1)+0.5)]
}

// Median gives the middle value.
func (s Series) Median() float64 { return s.Quantile(0.5) }

// Spread gives the first and the third quartile.
func (s Series) Spread() (low, high float64) { return s.Quantile(0.25), s.Quantile(0.75) }

// Over gives how much larger each value is than the baseline's of the same round.
func (s Series) Over(baseline Series) Series {
	return s.with(baseline, func(ours, theirs float64) float64 { return ours - theirs })
}

// RatioTo gives each value divided by the baseline's of the same round.
func (s Series) RatioTo(baseline Series) Series {
	return s.with(baseline, func(ours, theirs float64) float64 { return ours / theirs })
}

func (s Series) with(baseline Series, combine func(ours, theirs float64) float64) Series {
	combined := Series{Name: s.Name}
	for i, value := range s.Values {
		combined.Values = append(combined.Values, combine(value, baseline.Values[i]))
	}
	return combined
}
