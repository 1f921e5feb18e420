package enforcetest

import (
	"sync"

	"github.com/nameward/nameward/dataplane/enforce"
)

// Saver is a fake of the disk.
type Saver struct {
	mu    sync.Mutex // guards all below
	saved *enforce.Revision
	fault error
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
