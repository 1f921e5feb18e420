package dataplane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nameward/nameward/dataplane/enforce"
	"github.com/nameward/nameward/dataplane/netfilter"
)

// takeover keeps the hooks, and moves them on to this build's programs. Those of another build with the same
// maps are replaced at once. Those of another layout judge on, while this build's learn beside them, until
// these know what the others know: what was asked before they learned is answered by then, or never.
type takeover struct {
	hooks hooksOfTakeover
	maps  mapsOfTakeover
	inUse func(context.Context) (netfilter.InUse, error)
	wait  time.Duration // as long as a question waits for its answer
	now   func() time.Time
	log   *slog.Logger

	judged  bool // programs of another layout judge
	since   time.Time
	rules   string // in use when the overlap began
	retired bool
}

func newTakeover(hooks hooksOfTakeover, maps mapsOfTakeover, inUse func(context.Context) (netfilter.InUse, error), wait time.Duration, judged bool, log *slog.Logger) *takeover {
	return &takeover{hooks: hooks, maps: maps, inUse: inUse, wait: wait, now: time.Now, log: log, judged: judged}
}

type hooksOfTakeover interface {
	enforce.Hooks
	Overlap(ctx context.Context) error
}

type mapsOfTakeover interface {
	Judges() bool
	Carry() error
	RetirePrograms() error
}

var errNoRuleSet = errors.New("the programs of another release judge, with the rule set that they had, until there is one to put in force")

// Ensure ensures the hooks, once they can move on, and lets go of other builds' programs when they have:
// iptables-legacy opens every pin that a rule names at each write to the table.
func (t *takeover) Ensure(ctx context.Context, mending func(faults []string)) ([]string, error) {
	if t.judged {
		if err := t.overlap(ctx); err != nil {
			return nil, err
		}
	}
	mended, err := t.hooks.Ensure(ctx, mending)
	if err != nil {
		return mended, err //nolint:wrapcheck // the reconciler says what
	}
	if t.judged {
		t.judged = false
		t.log.Info("the programs of another release judge no longer")
	}
	if t.retired {
		return mended, nil
	}
	t.retired = true
	if err := t.maps.RetirePrograms(); err != nil {
		t.log.Warn("programs of other builds are left pinned, or what they learned last is not known", "err", err)
	}
	return mended, nil
}

// overlap has both releases learn; no error when that was long enough, or when somebody changed rules of the
// other, or put some before them: nobody mends those, and to miss an answer is less than not to judge.
func (t *takeover) overlap(ctx context.Context) error {
	inUse, err := t.inUse(ctx)
	if err != nil {
		return err //nolint:wrapcheck // says what it did
	}
	if len(inUse.Pins) == 0 {
		return nil
	}
	if !t.maps.Judges() {
		return errNoRuleSet
	}
	if !t.since.IsZero() && inUse.Rules != t.rules {
		return t.maps.Carry() //nolint:wrapcheck // says what it did
	}
	if t.since.IsZero() {
		if err := t.hooks.Overlap(ctx); err != nil {
			return err //nolint:wrapcheck // says what it did
		}
		t.since, t.rules = t.now(), inUse.Rules
		t.log.Info("the programs of another release judge while these learn beside them", "for", t.wait)
	}
	if err := t.maps.Carry(); err != nil {
		return fmt.Errorf("take over what another release learned: %w", err)
	}
	if t.now().Sub(t.since) < t.wait {
		return enforce.ErrOverlap
	}
	return nil
}
