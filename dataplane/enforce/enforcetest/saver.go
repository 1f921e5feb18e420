package enforcetest

import (
	"slices"
	"sync"

	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/dataplane/enforce"
)

// Saver is a fake of the disk.
type Saver struct {
	mu       sync.Mutex // guards all below
	saved    *enforce.Revision
	retained []*enforce.Revision
	fault    error
}

// Save keeps the revision.
func (s *Saver) Save(revision *enforce.Revision) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault == nil {
		s.saved = revision
	}
	return s.fault
}

// Fail makes each Save return err; nil ends that.
func (s *Saver) Fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = err
}

// Saved returns what was saved last.
func (s *Saver) Saved() *enforce.Revision {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.saved
}

// Retain keeps what is saved.
func (s *Saver) Retain() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault == nil && s.saved != nil {
		s.retained = append(s.retained, s.saved)
	}
	return s.fault
}

// RetainAny keeps a rule set that allows everything.
func (s *Saver) RetainAny() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault == nil {
		s.retained = append(s.retained, &enforce.Revision{Rules: &ruleset.RuleSet{}})
	}
	return s.fault
}

// Release drops what was retained.
func (s *Saver) Release() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retained = nil
	return s.fault
}

// Retained returns what was retained.
func (s *Saver) Retained() []*enforce.Revision {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.retained)
}
