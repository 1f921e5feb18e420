package syncserver

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestCrewDoesEachJobInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(1)
		var done []int
		for i := range 100 {
			c.do(func() { done = append(done, i) })
		}
		synctest.Wait()
		if len(done) != 100 || !slices.IsSorted(done) {
			t.Errorf("done in the order %v", done)
		}
		if c.busy != 0 {
			t.Errorf("%d goroutines have nothing to do", c.busy)
		}
	})
}

// However many jobs wait, the others are done; and when they wait no more, the crew is what it was.
func TestAJobThatWaitsHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(2)
		waits := make(chan struct{})
		for range 5 {
			c.do(func() { <-waits })
		}
		done := make(chan struct{})
		began := time.Now()
		c.do(func() { close(done) })
		<-done
		if took := time.Since(began); took > 6*stuckTime {
			t.Errorf("a job was done after %v, behind five that wait", took)
		}
		close(waits)
		synctest.Wait()
		if c.busy != 0 || c.next != len(c.jobs) {
			t.Errorf("%d goroutines are left, %d jobs", c.busy, len(c.jobs)-c.next)
		}
	})
}
