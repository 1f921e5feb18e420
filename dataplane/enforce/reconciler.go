package enforce

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nameward/nameward/api/ruleset"
)

const (
	hooksInterval = 2 * time.Second
	retryFirst    = 10 * time.Second // after a refusal, doubled with each further one
	retryLast     = 5 * time.Minute
)

// Reconciler brings the kernel to the newest wanted revision, and keeps the hooks in place.
type Reconciler struct {
	maps  Maps
	hooks Hooks
	saver Saver
	log   *slog.Logger

	want   *latest[*Revision]
	state  *latest[State]
	check  chan struct{} // holds one when the hooks are to be looked at now
	cutter *cutter

	// Of the one goroutine that reconciles.
	have       progress
	asked      allowance
	lookedAt   time.Time        // at the hooks
	before     *ruleset.RuleSet // in force, as connections are concerned
	retryAfter time.Duration
	stood      bool // the hooks stood once
	gone       bool // rules were gone, and what was opened meanwhile is not judged yet
	retained   bool // rule sets are kept that connections may have been allowed by
}

// NewReconciler makes a reconciler that wants nothing yet and leaves in force what is.
func NewReconciler(maps Maps, hooks Hooks, conntrack Conntrack, saver Saver, log *slog.Logger) *Reconciler {
	return &Reconciler{
		maps: maps, hooks: hooks, saver: saver, log: log,
		want: newLatest[*Revision](nil), state: newLatest(State{}), check: make(chan struct{}, 1), cutter: newCutter(conntrack, log),
	}
}

// Want replaces what is wanted. A revision that was not reached yet is passed over.
func (r *Reconciler) Want(revision *Revision) { r.want.set(revision) }

// CheckHooks has the hooks looked at now, since somebody may have changed them. Who asks again and again is
// answered as often as they are looked at anyway.
func (r *Reconciler) CheckHooks() {
	select {
	case r.check <- struct{}{}:
	default:
	}
}

// State returns what was reached, and a channel that closes at the next change.
func (r *Reconciler) State() (State, <-chan struct{}) { return r.state.get() }

// Saved is what the disk holds at a start.
type Saved struct {
	// Revision is what was in force last; nil for nothing.
	Revision *Revision
	// Retained are rule sets that were in force before, the oldest first, and that connections may have
	// been allowed by that are still open.
	Retained []*ruleset.RuleSet
	// Fault says why what was in force last is not known; nil when it is.
	Fault error
}

// Start brings the kernel to the revision that was saved when the agent last ran, if there is one, and to
// its hooks. It is called before Run, so that the node is as it was before anything else begins. What
// fails shows in State and is tried again by Run.
func (r *Reconciler) Start(ctx context.Context, saved Saved) {
	r.have.saved = saved.Revision
	r.want.set(saved.Revision)
	r.state.set(State{SaveErr: saved.Fault})
	r.before = r.inForce(saved.Revision)
	r.retained = len(saved.Retained) > 0
	if saved.Revision != nil {
		for _, rules := range saved.Retained {
			r.cutter.change(rules, saved.Revision.Rules)
		}
	}
	r.reconcile(ctx, saved.Revision)
}

// inForce returns what was in force before the start. Where it is not known what that was, as after a boot,
// everything may have been allowed.
func (r *Reconciler) inForce(saved *Revision) *ruleset.RuleSet {
	if saved == nil {
		return &ruleset.RuleSet{}
	}
	holds, err := r.maps.Holds(saved.Rules)
	if err != nil {
		r.log.Warn("what was in force before is not known: connections are judged as if all had been allowed", "err", err)
	}
	if !holds {
		return &ruleset.RuleSet{}
	}
	return saved.Rules
}

// Run reconciles until ctx ends. No error of maps, hooks or connections ends it.
func (r *Reconciler) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return r.cutter.run(ctx) })
	group.Go(func() error { return r.loop(ctx) })
	return group.Wait() //nolint:wrapcheck // neither returns one
}

func (r *Reconciler) loop(ctx context.Context) error {
	for {
		want, changed := r.want.get()
		_, walked := r.cutter.outcome.get()
		r.reconcile(ctx, want)
		timer := time.NewTimer(time.Until(r.due()))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-changed:
			timer.Stop()
		case <-walked:
			timer.Stop()
		case <-r.check:
			timer.Stop()
			r.lookSoon(time.Now())
		case <-timer.C:
		}
	}
}

// lookSoon has the hooks looked at before they are due, if that is allowed once more.
func (r *Reconciler) lookSoon(now time.Time) {
	at := r.lookedAt.Add(askedApart)
	if at.Before(now) {
		at = now
	}
	if at.Before(r.have.hooksAt) && r.asked.take(now) {
		r.have.hooksAt = at
	}
}

// due is when something has to be done though nothing new is wanted.
func (r *Reconciler) due() time.Time { return r.have.hooksAt }

func (r *Reconciler) reconcile(ctx context.Context, want *Revision) {
	state, _ := r.state.get()
	next := state
	for _, s := range plan(r.have, want, time.Now()) {
		if ctx.Err() != nil {
			return // a step that is cut short is no fault to tell
		}
		switch s {
		case stepApply:
			r.apply(ctx, want, &next)
		case stepAdopt:
			r.have.applied = want
		case stepHooks:
			r.ensure(ctx, &next)
		case stepSave:
			r.save(&next)
		}
	}
	if ctx.Err() != nil {
		return
	}
	r.release()
	outcome, _ := r.cutter.outcome.get()
	next.CutErr, next.Cut = outcome.err, outcome.count
	if r.have.applied == want {
		next.Refusal, r.have.refused = nil, nil
	}
	if next.HooksErr == nil && next.InForce != r.have.applied {
		r.reached(&next)
	}
	if next != state {
		r.state.set(next)
	}
}

// reached takes what is applied for in force. After a reconnect it may be what was, under the same
// number, which is no news.
func (r *Reconciler) reached(next *State) {
	before := next.InForce
	next.InForce = r.have.applied
	if before != nil && before.Number == next.InForce.Number && before.ID == next.InForce.ID {
		return
	}
	next.Since = time.Now()
	r.log.Info("rule set in force", "revision", next.InForce.Number, "rule_set", next.InForce.ID.String())
}

func (r *Reconciler) apply(ctx context.Context, want *Revision, next *State) {
	if r.before != want.Rules {
		r.retain()
	}
	err := r.maps.Apply(ctx, want.Rules)
	if err == nil {
		// Not before: what is cut meets the rules that are in force.
		if r.before != want.Rules {
			r.cutter.change(r.before, want.Rules)
		}
		r.have.applied, r.before = want, want.Rules
		return
	}
	if want != r.have.refused {
		r.retryAfter = retryFirst
		r.log.Error("rule set refused, the last good one stays in force", "revision", want.Number, "rule_set", want.ID.String(), "err", err)
	}
	r.have.refused = want
	r.have.retryAt = time.Now().Add(r.retryAfter)
	r.retryAfter = min(2*r.retryAfter, retryLast)
	next.Refusal = &Refusal{want, err}
}

func (r *Reconciler) ensure(ctx context.Context, next *State) {
	mended, err := r.hooks.Ensure(ctx, r.mending)
	r.lookedAt = time.Now()
	r.have.hooksAt = r.lookedAt.Add(hooksInterval)
	r.mended(mended, next)
	if r.gone {
		r.distrust()
		r.gone = err != nil
	}
	if err != nil {
		err = fmt.Errorf("ensure packet filter rules: %w", err)
	}
	switch {
	case err == nil && next.HooksErr != nil:
		r.log.Info("packet filter rules stand again")
	case errors.Is(err, ErrOverlap) && !errors.Is(next.HooksErr, ErrOverlap):
		r.log.Info("packet filter rules are moved on later", "why", err)
	case err != nil && (next.HooksErr == nil || next.HooksErr.Error() != err.Error()):
		r.log.Error("packet filter rules do not stand", "err", err)
	case err != nil:
		err = next.HooksErr // the same: no news
	}
	next.HooksErr = err
	r.stood = r.stood || err == nil
}

func (r *Reconciler) save(next *State) {
	// Not before all of it is in force, and at each check of the hooks until it is saved.
	if next.HooksErr != nil || r.have.applied == r.have.saved {
		return
	}
	err := r.saver.Save(r.have.applied)
	if err == nil {
		if next.SaveErr != nil {
			r.log.Info("rule set is on disk again")
		}
		r.have.saved = r.have.applied
		next.SaveErr = nil
		return
	}
	err = fmt.Errorf("save rule set: %w", err)
	if next.SaveErr == nil || next.SaveErr.Error() != err.Error() {
		r.log.Error("rule set not saved: after a reboot the one before comes back", "err", err)
		next.SaveErr = err
	}
}

// mended tells what had to be mended. The first time that is what was not there yet, or is of another release.
func (r *Reconciler) mended(mended []string, next *State) {
	if len(mended) > 0 && r.stood {
		next.Mended += uint64(len(mended))
		r.log.Warn("packet filter rules mended", "mended", mended)
	}
}

// mending notes that rules were gone before they stand again: an agent that ends in between would leave no trace of it.
func (r *Reconciler) mending(faults []string) {
	if !r.gone && (r.stood || slices.ContainsFunc(faults, isMissing)) {
		r.gone = true
		if r.have.applied != nil {
			r.keep(r.saver.RetainAny)
		}
	}
}

func isMissing(mended string) bool { return strings.HasSuffix(mended, Missing) }

// distrust has all connections judged: what was opened while rules were gone was judged by nobody.
func (r *Reconciler) distrust() {
	if r.have.applied == nil {
		return
	}
	r.cutter.change(&ruleset.RuleSet{}, r.before)
}

// retain keeps what was in force, since connections may be open by it: the agent may end before they are
// cut.
func (r *Reconciler) retain() {
	if r.have.saved != nil && r.have.saved.Rules == r.before {
		r.keep(r.saver.Retain)
	} else {
		r.keep(r.saver.RetainAny)
	}
}

func (r *Reconciler) keep(retain func() error) {
	r.retained = true
	if err := retain(); err != nil {
		r.log.Warn("rule set before not kept: should the agent end now, connections may stay open that are no longer allowed", "err", err)
	}
}

// release drops what was retained once nothing is owed.
func (r *Reconciler) release() {
	if !r.retained || r.cutter.owes() {
		return
	}
	if err := r.saver.Release(); err != nil {
		r.log.Warn("old rule sets are left on disk", "err", err)
	}
	r.retained = false
}
