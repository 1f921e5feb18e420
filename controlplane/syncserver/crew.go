package syncserver

import (
	"runtime"
	"sync"
	"time"
)

const (
	// crewTurn is how many jobs a goroutine of a crew does before others have their turn: what was handed to connections
	// is to be on its way before much more is.
	crewTurn = 16
	// stuckTime is how long a job may take before it is taken for one that waits, such as for a node that does not read.
	stuckTime = 20 * time.Millisecond
)

// crew does what there is to do for thousands of streams, in order, on a few goroutines. One for each stream would have
// to be woken for each job, and keep the stack that its deepest job once needed. A job may wait: another goroutine then
// takes the place of the one that does it. No goroutine lives longer than there are jobs.
type crew struct {
	size int // of the goroutines that do not wait

	mu   sync.Mutex // guards all below
	jobs []func()   // those from next on are to be done
	next int
	// busy counts the goroutines, begun the jobs that they began.
	busy  int
	begun uint64
	// watched says that somebody looks whether jobs are begun.
	watched bool
}

func newCrew(size int) *crew { return &crew{size: size} }

// do has a job done soon, behind those that were to be done before.
func (c *crew) do(job func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.jobs = append(c.jobs, job)
	switch {
	case c.busy < c.size:
		c.busy++
		go c.work()
	case !c.watched:
		c.watched = true
		c.watch(c.begun)
	}
}

// work does jobs until there are none, or one more goroutine than is wanted.
func (c *crew) work() {
	waited := false
	for done := 1; ; done++ {
		job := c.take(waited)
		if job == nil {
			return
		}
		began := time.Now()
		job()
		waited = time.Since(began) >= stuckTime
		if done%crewTurn == 0 {
			runtime.Gosched()
		}
	}
}

// take returns the next job. Without one, the goroutine is no longer of the crew.
func (c *crew) take(waited bool) (job func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next == len(c.jobs) || waited && c.busy > c.size {
		c.busy--
		return nil
	}
	job, c.jobs[c.next] = c.jobs[c.next], nil
	c.begun++
	if c.next++; c.next == len(c.jobs) {
		c.jobs, c.next = c.jobs[:0], 0
	}
	return job
}

// watch is called under mu. It looks, until all is done, whether more jobs are begun than a number.
func (c *crew) watch(begun uint64) {
	time.AfterFunc(stuckTime, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.watched = c.next < len(c.jobs); !c.watched {
			return
		}
		next := c.begun
		if c.begun <= begun {
			c.busy++
			next++ // the job that it begins says nothing of the others
			go c.work()
		}
		c.watch(next)
	})
}
