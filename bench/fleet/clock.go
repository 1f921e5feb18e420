package fleet

import (
	"fmt"
	"runtime"
	"time"
)

// A clock tells what part of the machine's processors the server has, and what part the agents and who writes.
type clock struct {
	began  time.Time
	own    time.Duration
	server use
}

func startClock(server use) clock { return clock{time.Now(), ownCPU(), server} }

// stop says what the parts were since the start.
func (c clock) stop(s *server) (string, error) {
	now, err := s.use()
	return c.share(now), err
}

// share is stop where the server's use is known.
func (c clock) share(now use) string {
	took := time.Since(c.began)
	percent := func(cpu time.Duration) float64 { return 100 * cpu.Seconds() / took.Seconds() }
	return fmt.Sprintf("of the %d cores that they share, the server had %.0f %% of one meanwhile, and the agents with who writes %.0f %%.",
		runtime.NumCPU(), percent(now.cpu-c.server.cpu), percent(ownCPU()-c.own))
}
