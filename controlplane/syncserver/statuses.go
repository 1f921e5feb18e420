package syncserver

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/controlplane/store"
)

// What nodes say comes in bursts: each change is acknowledged by all of them. It is written for all together, so
// often at most, and so that it takes no more than a part of the time.
const (
	statusInterval = 100 * time.Millisecond
	statusPart     = 10
)

// statuses gathers what changes in the status of nodes. That a node comes or goes is written at once: others act on it.
type statuses struct {
	store *store.Store
	// forgotten is told of a node of which the store knows nothing.
	forgotten func(node.ID)
	waiting   chan struct{} // has an element when something was gathered

	writing sync.Mutex // keeps writes in order; taken before mu

	mu       sync.Mutex // guards gathered
	gathered map[node.ID][]func(*store.NodeStatus)
}

func newStatuses(s *store.Store, forgotten func(node.ID)) *statuses {
	return &statuses{
		store: s, forgotten: forgotten, waiting: make(chan struct{}, 1), gathered: map[node.ID][]func(*store.NodeStatus){},
	}
}

// change has the status of a node changed soon. The function must not call the store.
func (s *statuses) change(id node.ID, change func(*store.NodeStatus)) {
	s.mu.Lock()
	s.gathered[id] = append(s.gathered[id], change)
	s.mu.Unlock()
	select {
	case s.waiting <- struct{}{}:
	default:
	}
}

// changeNow changes the status of a node, behind what was gathered for it.
func (s *statuses) changeNow(id node.ID, change func(*store.NodeStatus)) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	before := s.gathered[id]
	delete(s.gathered, id)
	s.mu.Unlock()
	err := s.store.UpdateNodeStatus(id, func(status *store.NodeStatus) {
		for _, change := range before {
			change(status)
		}
		change(status)
	})
	if err != nil {
		return fmt.Errorf("update status: %w", err)
	}
	return nil
}

// write writes what was gathered.
func (s *statuses) write() error {
	unknown, err := s.writeKnown()
	if err != nil {
		return fmt.Errorf("update statuses: %w", err)
	}
	// Outside of the locks: it ends sessions, which write that they end.
	for _, id := range unknown {
		s.forgotten(id)
	}
	return nil
}

func (s *statuses) writeKnown() (unknown []node.ID, err error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	gathered := s.gathered
	s.gathered = make(map[node.ID][]func(*store.NodeStatus), len(gathered))
	s.mu.Unlock()
	if len(gathered) == 0 {
		return nil, nil
	}
	return s.store.UpdateNodeStatuses(gathered) //nolint:wrapcheck // write says what it was for
}

// run writes now and then until ctx ends, and once more.
func (s *statuses) run(ctx context.Context) error {
	interval := statusInterval
	for {
		select {
		case <-ctx.Done():
			return s.write()
		case <-s.waiting:
		}
		// The first of many is no reason to write at once.
		timer := time.NewTimer(interval)
		select {
		case <-ctx.Done():
			timer.Stop()
			return s.write()
		case <-timer.C:
		}
		began := time.Now()
		if err := s.write(); err != nil {
			return err
		}
		interval = max(statusInterval, statusPart*time.Since(began))
	}
}
