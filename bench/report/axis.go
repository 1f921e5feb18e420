package report

import "math"

// axis places values along a line of the picture.
type axis struct {
	log       bool
	low, high float64 // values at the ends
	from, to  float64 // places of the ends
	ticks     []float64
	minor     []float64 // ticks without a number
}

// newAxis makes an axis that begins and ends at round values around those given.
func newAxis(values []float64, log, fromZero bool, from, to float64) axis {
	a := axis{log: log, from: from, to: to}
	low, high := math.Inf(1), math.Inf(-1)
	for _, v := range values {
		if log && v <= 0 {
			continue // lies at the lower end
		}
		low, high = min(low, v), max(high, v)
	}
	if low > high {
		low, high = 1, 10
	}
	if log {
		a.decades(low, high)
		return a
	}
	if fromZero {
		low = min(low, 0)
	}
	a.linear(low, high)
	return a
}

// decades makes the ticks of an axis over few decades: 1, 2 and 5 of each; over many, the decades alone.
func (a *axis) decades(low, high float64) {
	multiples := []float64{1}
	if math.Log10(high/low) < 2 {
		multiples = []float64{1, 2, 5}
	}
	var ticks []float64
	for e := math.Floor(math.Log10(low)) - 1; e <= math.Ceil(math.Log10(high))+1; e++ {
		for _, m := range multiples {
			ticks = append(ticks, m*math.Pow(10, e))
		}
	}
	first, last := 0, len(ticks)-1
	for ticks[first+1] <= low*1.0001 {
		first++
	}
	for ticks[last-1] >= high*0.9999 {
		last--
	}
	if first == last {
		last++
	}
	a.ticks = ticks[first : last+1]
	a.low, a.high = ticks[first], ticks[last]
	if len(multiples) == 1 {
		a.minor = between(a.ticks)
	}
}

func between(decades []float64) (minor []float64) {
	for _, decade := range decades[:len(decades)-1] {
		for m := 2.0; m < 10; m++ {
			minor = append(minor, m*decade)
		}
	}
	return minor
}

// linear makes about five ticks at round steps.
func (a *axis) linear(low, high float64) {
	if low == high {
		high = low + max(math.Abs(low), 1)
	}
	rough := (high - low) / 5
	step := math.Pow(10, math.Floor(math.Log10(rough)))
	for _, m := range []float64{1, 2, 5, 10} {
		if step*m >= rough*0.75 {
			step *= m
			break
		}
	}
	a.low, a.high = math.Floor(low/step)*step, math.Ceil(high/step)*step
	for i := 0.0; a.low+i*step <= a.high+step/2; i++ {
		a.ticks = append(a.ticks, a.low+i*step)
	}
}

// at gives a value's place. What lies outside is at the end.
func (a *axis) at(value float64) float64 {
	share := 0.0
	switch {
	case !a.log:
		share = (value - a.low) / (a.high - a.low)
	case value > 0:
		share = math.Log(value/a.low) / math.Log(a.high/a.low)
	}
	return a.from + min(max(share, 0), 1)*(a.to-a.from)
}
