package report

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/nameward/nameward/bench/measure"
)

// A Format writes a number with its unit, as a person would say it.
type Format func(float64) string

// Count writes a number of things: 800, 1k, 12.5k, 1M.
func Count(n float64) string { return scaled(n, "", []string{"", "k", "M", "G"}, 1000) }

// Nanoseconds writes a duration that is given in nanoseconds: 412 ns, 4.1 µs, 2 ms.
func Nanoseconds(ns float64) string { return scaled(ns, " ", []string{"ns", "µs", "ms", "s"}, 1000) }

// Bytes writes a size: 24 B, 4.5 KiB, 61 MiB.
func Bytes(n float64) string { return scaled(n, " ", []string{"B", "KiB", "MiB", "GiB"}, 1024) }

// Ratio writes how many times as much something is: 0.97×.
func Ratio(r float64) string {
	if math.Abs(r) >= 10 {
		return Thousands(r) + "×"
	}
	return strconv.FormatFloat(r, 'f', 2, 64) + "×"
}

// Percent writes a share, from 0 to 1.
func Percent(share float64) string { return digits(share*100) + " %" }

// Thousands writes a whole number with its digits in groups: 2,040,000.
func Thousands(n float64) string {
	text := strconv.FormatFloat(math.Abs(math.Round(n)), 'f', 0, 64)
	for at := len(text) - 3; at > 0; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	if math.Round(n) < 0 {
		return "−" + text
	}
	return text
}

// WholeNanoseconds writes nanoseconds that are to be compared to the last one: 2,040 ns.
func WholeNanoseconds(ns float64) string { return Thousands(ns) + " ns" }

// Spread writes a median with its quartiles: 412 ns (380–450).
func Spread(series measure.Series, format Format) string {
	low, high := series.Spread()
	from, to := format(low), format(high)
	if unit := unitOf(from); unit != "" && unit == unitOf(to) && unit == unitOf(format(series.Median())) {
		from, to = strings.TrimSuffix(from, unit), strings.TrimSuffix(to, unit)
	}
	return fmt.Sprintf("%s (%s–%s)", format(series.Median()), from, to)
}

// unitOf is what follows the last digit.
func unitOf(text string) string { return text[strings.LastIndexAny(text, "0123456789")+1:] }

func scaled(n float64, space string, units []string, step float64) string {
	unit := 0
	for math.Abs(n) >= step*0.9995 && unit < len(units)-1 {
		n /= step
		unit++
	}
	if units[unit] == "" {
		space = ""
	}
	return digits(n) + space + units[unit]
}

// digits writes three digits that count, or all of a whole number.
func digits(n float64) string {
	places := 0
	switch {
	case math.Abs(n) < 9.995:
		places = 2
	case math.Abs(n) < 99.95:
		places = 1
	}
	text := strconv.FormatFloat(n, 'f', places, 64)
	if places > 0 {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	if text == "-0" {
		return "0"
	}
	return strings.Replace(text, "-", "−", 1)
}
