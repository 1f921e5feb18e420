package path

import (
	"fmt"

	"github.com/nameward/nameward/bench/measure"
	"github.com/nameward/nameward/bench/report"
)

// spread formats the median of nanoseconds with its quartiles.
func spread(s measure.Series) string {
	low, high := s.Spread()
	return fmt.Sprintf("%s (%s to %s)", report.Thousands(s.Median()), report.Thousands(low), report.Thousands(high))
}

// point is a series at a size.
func point(size int, s measure.Series) report.Point {
	low, high := s.Spread()
	return report.Point{X: float64(size), Y: s.Median(), Low: low, High: high}
}

func logf(config report.Config, format string, args ...any) {
	if config.Log != nil {
		fmt.Fprintf(config.Log, format+"\n", args...) //nolint:errcheck // progress
	}
}
