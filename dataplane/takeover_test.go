package dataplane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/nameward/nameward/dataplane/enforce"
	"github.com/nameward/nameward/dataplane/netfilter"
)

// takeoverSubject notes what a takeover does.
type takeoverSubject struct {
	did      []string
	judges   bool
	inUse    netfilter.InUse
	hooksErr error
}

func (s *takeoverSubject) note(what string) { s.did = append(s.did, what) }

func (s *takeoverSubject) Ensure(context.Context, func([]string)) ([]string, error) {
	s.note("hooks")
	return nil, s.hooksErr
}

func (s *takeoverSubject) Overlap(context.Context) error { s.note("overlap"); return nil }
func (s *takeoverSubject) Carry() error                  { s.note("carry"); return nil }
func (s *takeoverSubject) RetirePrograms() error         { s.note("retire"); return nil }
func (s *takeoverSubject) Judges() bool                  { return s.judges }

func TestTakeover(t *testing.T) {
	s := &takeoverSubject{inUse: judging("v0/egress", "v0/response")}
	now := time.Now()
	h := newTakeoverOf(s, &now)
	ensure := func(wantErr error, did ...string) {
		t.Helper()
		s.expect(t, h, wantErr, did...)
	}
	ensure(errNoRuleSet) // nothing would judge
	s.judges = true
	ensure(enforce.ErrOverlap, "overlap", "carry")
	now = now.Add(9 * time.Second)
	ensure(enforce.ErrOverlap, "carry")
	s.judges = false // a rule set was refused
	ensure(errNoRuleSet)
	s.judges = true
	now = now.Add(2 * time.Second)
	s.hooksErr = errors.New("no")
	ensure(s.hooksErr, "carry", "hooks")
	s.hooksErr = nil
	ensure(nil, "carry", "hooks", "retire")
	ensure(nil, "hooks")
}

func judging(pins ...string) netfilter.InUse {
	return netfilter.InUse{Pins: pins, Rules: fmt.Sprint(pins)}
}

// Where somebody takes rules of the other release away, whether they call programs or not, which nobody mends,
// the rules move on at once.
func TestTakeoverOfRulesThatAreTakenAway(t *testing.T) {
	withoutJump := judging("v0/egress", "v0/response")
	withoutJump.Rules = "fewer"
	for _, left := range []netfilter.InUse{{}, judging("v0/egress"), withoutJump} {
		s := &takeoverSubject{inUse: judging("v0/egress", "v0/response"), judges: true}
		now := time.Now()
		h := newTakeoverOf(s, &now)
		s.expect(t, h, enforce.ErrOverlap, "overlap", "carry")
		s.inUse = left
		want := []string{"carry", "hooks", "retire"}
		if len(left.Pins) == 0 {
			want = want[1:]
		}
		s.expect(t, h, nil, want...)
	}
	// Without a rule set too: there is nobody who would judge by another.
	s := &takeoverSubject{}
	now := time.Now()
	s.expect(t, newTakeoverOf(s, &now), nil, "hooks", "retire")
}

func newTakeoverOf(s *takeoverSubject, now *time.Time) *takeover {
	h := newTakeover(s, s, func(context.Context) (netfilter.InUse, error) { return s.inUse, nil }, 10*time.Second, true, slog.New(slog.DiscardHandler))
	h.now = func() time.Time { return *now }
	return h
}

func (s *takeoverSubject) expect(t *testing.T, h *takeover, wantErr error, did ...string) {
	t.Helper()
	s.did = nil
	if _, err := h.Ensure(t.Context(), func([]string) {}); !errors.Is(err, wantErr) {
		t.Errorf("got %v, want %v", err, wantErr)
	}
	if !slices.Equal(s.did, did) {
		t.Errorf("did %v, want %v", s.did, did)
	}
}
