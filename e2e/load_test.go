package e2e_test

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nameward/nameward/e2e/lab"
)

// A load resolves fresh names and connects to them at once, and tries what is denied, until it is stopped.
type load struct {
	resolved, refused atomic.Int64
	done              chan struct{}
	group             sync.WaitGroup
	started           time.Time
	lasted            time.Duration // until it was stopped
	// As long as the node has a question wait. What is answered later opens nothing, and may do so: by the client's
	// clock, which sees the question before the node does, and the answer after it.
	waits time.Duration

	mu      sync.Mutex  // guards all below
	began   []time.Time // of each name
	faults  []loadFault
	excused []loadTime
	late    int // answers that were waited for too long
}

type loadTime struct{ from, to time.Time }

func (a loadTime) meets(b loadTime) bool { return !a.to.Before(b.from) && !b.to.Before(a.from) }

// loadFault is a connection that was not as it had to be.
type loadFault struct {
	loadTime
	format string
	args   []any
}

// startLoad begins with names at a rate a second, and as fast as so many workers can where they are behind; and with
// half as many tries of what is denied.
func (f *fleet) startLoad(t *testing.T, name func(resolver netip.Addr, i int) string, rate, workers int) *load {
	l := &load{done: make(chan struct{}), started: time.Now(), waits: f.queryTimeout()}
	evil := f.learn(t, lab.ResolverV4, "evil.example")
	resolvers := []netip.Addr{lab.ResolverV4, lab.ResolverV6}
	names, tries := make(chan int), make(chan int)
	l.group.Go(func() { l.pace(names, time.Second/time.Duration(rate)) })
	l.group.Go(func() { l.pace(tries, 2*time.Second/time.Duration(rate)) })
	work := func(numbers <-chan int, do func(c *lab.Caller, i int)) {
		l.group.Go(func() {
			if err := f.Client.Call(func(c *lab.Caller) {
				for i := range numbers {
					do(c, i)
				}
			}); err != nil {
				l.fault(time.Now(), "%v", err)
			}
		})
	}
	for range workers {
		work(names, func(c *lab.Caller, i int) { l.open(c, resolvers[i%2], name(resolvers[i%2], i)) })
	}
	work(tries, func(c *lab.Caller, _ int) { l.refuse(c, evil) })
	t.Cleanup(l.stop)
	return l
}

// queryTimeout is for how long a question waits for its answer, as the agent's flags say.
func (f *fleet) queryTimeout() time.Duration {
	f.t.Helper()
	at := slices.Index(f.agentFlags, "--dns-query-timeout")
	if at < 0 {
		return 10 * time.Second
	}
	timeout, err := time.ParseDuration(f.agentFlags[at+1])
	f.must(err)
	return timeout
}

// pace gives out numbers, each when it is due, until the load is stopped.
func (l *load) pace(numbers chan<- int, interval time.Duration) {
	defer close(numbers)
	began := time.Now()
	for i := 0; ; i++ {
		timer := time.NewTimer(time.Until(began.Add(time.Duration(i) * interval)))
		select {
		case <-l.done:
			timer.Stop()
			return
		case <-timer.C:
		}
		select {
		case <-l.done:
			return
		case numbers <- i:
		}
	}
}

func (l *load) open(c *lab.Caller, resolver netip.Addr, name string) {
	began := time.Now()
	addresses, err := c.Resolve(resolver, name)
	if err != nil {
		l.fault(began, "resolve %s: %v", name, err)
		return
	}
	late := time.Since(began) > l.waits
	if err := c.Connect(addresses[0], lab.ServicePort); err != nil && !late {
		l.fault(began, "connect to %s (%s) right after its answer: %v", name, addresses[0], err)
	}
	l.mu.Lock()
	l.began = append(l.began, began)
	if late {
		l.late++
	}
	l.mu.Unlock()
	l.resolved.Add(1)
}

func (l *load) refuse(c *lab.Caller, evil netip.Addr) {
	began := time.Now()
	if err := c.Connect(evil, lab.ServicePort); !lab.Refused(err) {
		l.fault(began, "connect to %s, which is denied: %v, want refused at once", evil, err)
	}
	l.refused.Add(1)
}

func (l *load) fault(began time.Time, format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faults = append(l.faults, loadFault{loadTime{began, time.Now()}, format, args})
}

// pass waits until so many more names were resolved and connected to.
func (l *load) pass(f *fleet, names int64) {
	f.t.Helper()
	until := l.resolved.Load() + names
	f.must(lab.Await(f.t.Context(), func() error {
		if now := l.resolved.Load(); now < until {
			return fmt.Errorf("%d names resolved of %d", now, until)
		}
		return nil
	}, nil))
}

// excuse lets what happens in a time be as it may.
func (l *load) excuse(from, to time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.excused = append(l.excused, loadTime{from, to})
}

func (l *load) isExcused(when loadTime) bool {
	for _, excused := range l.excused {
		if excused.meets(when) {
			return true
		}
	}
	return false
}

func (l *load) stop() {
	select {
	case <-l.done:
	default:
		close(l.done)
		l.lasted = time.Since(l.started)
	}
	l.group.Wait()
}

// report fails the test with the connections that were not as they had to be.
func (l *load) report(t *testing.T) {
	t.Helper()
	excused := 0
	for _, fault := range l.faults {
		if l.isExcused(fault.loadTime) {
			excused++
			continue
		}
		t.Errorf("%s, for %v: "+fault.format, append([]any{fault.from.Format("15:04:05.000"), fault.to.Sub(fault.from)}, fault.args...)...)
	}
	if excused > 0 || l.late > 0 {
		t.Logf("%d faults while rules were gone, %d answers after more than %v", excused, l.late, l.waits)
	}
}

// answers is how many answers came, that of what is denied included, and how many of them in excused times.
func (l *load) answers() (all, excused int) {
	for _, began := range l.began {
		if l.isExcused(loadTime{began, began.Add(time.Second)}) {
			excused++
		}
	}
	return len(l.began) + 1, excused
}
