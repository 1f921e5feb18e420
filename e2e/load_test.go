package e2e_test

import (
	"fmt"
	"net/netip"
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

	mu      sync.Mutex  // guards all below
	began   []time.Time // of each name
	faults  []loadFault
	excused []loadTime
}

type loadTime struct{ from, to time.Time }

func (a loadTime) meets(b loadTime) bool { return !a.to.Before(b.from) && !b.to.Before(a.from) }

// loadFault is a connection that was not as it had to be.
type loadFault struct {
	loadTime
	format string
	args   []any
}

// startLoad begins with names at a rate a second, or as fast as so many workers can.
func (f *fleet) startLoad(t *testing.T, name func(resolver netip.Addr, i int) string, rate, workers int) *load {
	l := &load{done: make(chan struct{})}
	evil := f.learn(t, lab.ResolverV4, "evil.example")
	numbers := make(chan int)
	l.group.Go(func() {
		defer close(numbers)
		pace := time.NewTicker(time.Second / time.Duration(rate))
		defer pace.Stop()
		for i := 0; ; i++ {
			select {
			case <-l.done:
				return
			case <-pace.C:
			}
			select {
			case <-l.done:
				return
			case numbers <- i:
			}
		}
	})
	resolvers := []netip.Addr{lab.ResolverV4, lab.ResolverV6}
	for range workers {
		l.group.Go(func() {
			for i := range numbers {
				resolver := resolvers[i%2]
				l.open(f, resolver, name(resolver, i))
			}
		})
	}
	l.group.Go(func() {
		for l.goesOn() {
			l.refuse(f, evil)
		}
	})
	t.Cleanup(l.stop)
	return l
}

func (l *load) open(f *fleet, resolver netip.Addr, name string) {
	began := time.Now()
	addresses, err := f.Resolve(resolver, name)
	if err != nil {
		l.fault(began, "resolve %s: %v", name, err)
		return
	}
	if err := f.Connect(addresses[0], lab.ServicePort); err != nil {
		l.fault(began, "connect to %s (%s) right after its answer: %v", name, addresses[0], err)
	}
	l.mu.Lock()
	l.began = append(l.began, began)
	l.mu.Unlock()
	l.resolved.Add(1)
}

func (l *load) refuse(f *fleet, evil netip.Addr) {
	began := time.Now()
	if err := f.Connect(evil, lab.ServicePort); !lab.Refused(err) {
		l.fault(began, "connect to %s, which is denied: %v, want refused at once", evil, err)
	}
	l.refused.Add(1)
}

func (l *load) fault(began time.Time, format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faults = append(l.faults, loadFault{loadTime{began, time.Now()}, format, args})
}

func (l *load) goesOn() bool {
	select {
	case <-l.done:
		return false
	default:
		return true
	}
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
		t.Errorf("%s: "+fault.format, append([]any{fault.from.Format("15:04:05.000")}, fault.args...)...)
	}
	if excused > 0 {
		t.Logf("%d faults while rules were gone", excused)
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
