package path

import (
	"fmt"
	"strconv"

	"github.com/nameward/nameward/bench/measure"
	"github.com/nameward/nameward/bench/report"
)

// whole formats a number without decimals, its thousands apart.
func whole(value float64) string {
	text := strconv.FormatFloat(value, 'f', 0, 64)
	sign := ""
	if text[0] == '-' {
		sign, text = "−", text[1:]
	}
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	if text == "0" {
		return text
	}
	return sign + text
}

// spread formats the median of nanoseconds with its quartiles.
func spread(s measure.Series) string {
	low, high := s.Spread()
	return fmt.Sprintf("%s (%s to %s)", whole(s.Median()), whole(low), whole(high))
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
