package dataplane

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nameward/nameward/dataplane/preflight"
)

// adviceInterval is how often the agent looks again for rules of others in its way: whoever makes such a
// rule usually does it for good.
const adviceInterval = 10 * time.Minute

// advice is what others do in the agent's way, since the last look.
type advice struct {
	look func(ctx context.Context) []Requirement
	log  *slog.Logger

	said map[string]bool // of the last look; of run alone

	mu     sync.Mutex // guards faults
	faults []string
}

// newAdvice looks by the backend that the rules stand in.
func newAdvice(kernel kernel, cfg Config, backend string, log *slog.Logger) *advice {
	cfg.IPTables = backend
	return &advice{
		look: func(ctx context.Context) []Requirement { return kernel.conflicts(ctx, cfg) },
		log:  log.With("component", "preflight"),
	}
}

func (a *advice) run(ctx context.Context) error {
	tick := time.NewTicker(adviceInterval)
	defer tick.Stop()
	for {
		if found := a.look(ctx); ctx.Err() == nil {
			a.renew(found)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// renew logs what is new.
func (a *advice) renew(found []Requirement) {
	var faults []string
	said := map[string]bool{}
	for _, r := range found {
		if r.Level == preflight.OK {
			continue
		}
		fault := fmt.Sprintf("%s: %s. Remedy: %s", r.Name, r.Detail, r.Remedy)
		said[fault] = true
		if !a.said[fault] {
			a.log.Warn("somebody else is in the way", "requirement", r.Name, "detail", r.Detail, "remedy", r.Remedy)
		}
		// A warning is no fault of what is enforced.
		if r.Level == preflight.Failed {
			faults = append(faults, fault)
		}
	}
	a.said = said
	a.mu.Lock()
	defer a.mu.Unlock()
	a.faults = faults
}

// Faults returns what makes the agent enforce less, or more, than the policies say.
func (a *advice) Faults() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.faults
}
