package labclock_test

import (
	"testing"
	"time"

	"github.com/nameward/nameward/e2e/lab/labclock"
)

// A step moves the wall clock, to and fro, and no time that passed.
func TestStep(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(labclock.Variable, dir)
	file, err := labclock.Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close() //nolint:errcheck // the test is over
	began := labclock.Now()
	for _, by := range []time.Duration{0, time.Hour, -400 * 24 * time.Hour, 10 * time.Second} {
		if err := labclock.Step(file, by); err != nil {
			t.Fatal(err)
		}
		now, really := labclock.Now(), time.Now()
		if off := now.Round(0).Sub(really.Round(0)) - by; off.Abs() > time.Second {
			t.Errorf("stepped by %v, the wall clock is off by %v", by, by+off)
		}
		if passed := now.Sub(began); passed < 0 || passed > time.Minute || labclock.Since(began) < passed || labclock.Until(began) > -passed {
			t.Errorf("stepped by %v, %v have passed", by, passed)
		}
	}
}
