package enforce

import (
	"context"
	"fmt"
	"log/slog"
	"time"
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

	want  *latest[*Revision]
	state *latest[State]

	// Of the one goroutine that reconciles.
	have       progress
	retryAfter time.Duration
	stood      bool // the hooks stood once
}

// NewReconciler makes a reconciler that wants nothing yet and leaves in force what is.
func NewReconciler(maps Maps, hooks Hooks, saver Saver, log *slog.Logger) *Reconciler {
	return &Reconciler{
		maps: maps, hooks: hooks, saver: saver, log: log,
		want: newLatest[*Revision](nil), state: newLatest(State{}),
	}
}

// Want replaces what is wanted. A revision that was not reached yet is passed over.
func (r *Reconciler) Want(revision *Revision) { r.want.set(revision) }

// State returns what was reached, and a channel that closes at the next change.
func (r *Reconciler) State() (State, <-chan struct{}) { return r.state.get() }

// Start brings the kernel to the revision that was saved when the agent last ran, nil when there is
// none, and to its hooks. It is called before Run, so that the node is as it was before anything else
// begins. What fails shows in State and is tried again by Run.
func (r *Reconciler) Start(ctx context.Context, saved *Revision) {
	r.have.saved = saved
	r.want.set(saved)
	r.reconcile(ctx, saved)
}

// Run reconciles until ctx ends. No error of maps or hooks ends it.
func (r *Reconciler) Run(ctx context.Context) error {
	for {
		want, changed := r.want.get()
		r.reconcile(ctx, want)
		timer := time.NewTimer(time.Until(r.due()))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-changed:
			timer.Stop()
		case <-timer.C:
		}
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
	err := r.maps.Apply(ctx, want.Rules)
	if err == nil {
		r.have.applied = want
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
	mended, err := r.hooks.Ensure(ctx)
	r.have.hooksAt = time.Now().Add(hooksInterval)
	if len(mended) > 0 && r.stood {
		next.Mended += uint64(len(mended))
		r.log.Warn("packet filter rules mended", "mended", mended)
	}
	if err != nil {
		err = fmt.Errorf("ensure packet filter rules: %w", err)
	}
	switch {
	case err == nil && next.HooksErr != nil:
		r.log.Info("packet filter rules stand again")
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
		r.have.saved = r.have.applied
		next.SaveErr = nil
		return
	}
	if next.SaveErr == nil {
		r.log.Error("rule set not saved: after a reboot the one before comes back", "err", err)
		next.SaveErr = fmt.Errorf("save rule set: %w", err)
	}
}
