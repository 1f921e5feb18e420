package dataplane

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/nameward/nameward/dataplane/enforce"
)

// takeoverSubject notes what a takeover does.
type takeoverSubject struct {
	did      []string
	judges   bool
	hooksErr error
}

func (s *takeoverSubject) note(what string) { s.did = append(s.did, what) }

func (s *takeoverSubject) Ensure(context.Context) ([]string, error) {
	s.note("hooks")
	return nil, s.hooksErr
}

func (s *takeoverSubject) Overlap(context.Context) error { s.note("overlap"); return nil }
func (s *takeoverSubject) Carry() error                  { s.note("carry"); return nil }
func (s *takeoverSubject) RetirePrograms() error         { s.note("retire"); return nil }
func (s *takeoverSubject) Judges() bool                  { return s.judges }

func TestTakeover(t *testing.T) {
	s := &takeoverSubject{}
	now := time.Now()
	h := &takeover{hooks: s, maps: s, wait: 10 * time.Second, now: func() time.Time { return now }, log: slog.New(slog.DiscardHandler), judged: true}
	ensure := func(wantErr error, did ...string) {
		t.Helper()
		s.did = nil
		if _, err := h.Ensure(t.Context()); !errors.Is(err, wantErr) {
			t.Errorf("got %v, want %v", err, wantErr)
		}
		if !slices.Equal(s.did, did) {
			t.Errorf("did %v, want %v", s.did, did)
		}
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
