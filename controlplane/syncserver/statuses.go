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

	writing sync.Mutex  // keeps writes in order, and guards spare; taken before mu
	spare   []*gathered // room for due

	mu    sync.Mutex // guards all below, and of what is in them all that is not taken
	nodes map[node.ID]*gathered
	// due are those that have changes, in the order in which they had the first.
	due []*gathered
}

// gathered is what changes in the status of one node.
type gathered struct {
	id      node.ID
	changes []func(*store.NodeStatus)
	isDue   bool
	// taken are the changes that are written, under statuses.writing. Its room and that of changes take turns.
	taken []func(*store.NodeStatus)
}

func newStatuses(s *store.Store, forgotten func(node.ID)) *statuses {
	return &statuses{store: s, forgotten: forgotten, waiting: make(chan struct{}, 1), nodes: map[node.ID]*gathered{}}
}

// of returns where changes of a node are gathered, for who has many of them.
func (s *statuses) of(id node.ID) *gathered {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[id]
	if n == nil {
		n = &gathered{id: id}
		s.nodes[id] = n
	}
	return n
}

// forget ends what of began.
func (s *statuses) forget(id node.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.nodes, id)
}

// change has the status of a node changed soon. The function must not call the store.
func (s *statuses) change(n *gathered, change func(*store.NodeStatus)) {
	s.mu.Lock()
	n.changes = append(n.changes, change)
	first := !n.isDue
	if first {
		n.isDue = true
		s.due = append(s.due, n)
	}
	s.mu.Unlock()
	if !first {
		return
	}
	select {
	case s.waiting <- struct{}{}:
	default:
	}
}

// changeNow changes the status of a node, behind what was gathered for it.
func (s *statuses) changeNow(n *gathered, change func(*store.NodeStatus)) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	before := n.changes
	n.changes = nil
	s.mu.Unlock()
	err := s.store.UpdateNodeStatus(n.id, func(status *store.NodeStatus) {
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
	due := s.take()
	defer func() {
		for i, n := range due {
			clear(n.taken) // they hold what nodes said
			due[i] = nil
		}
		s.spare = due[:0]
	}()
	if len(due) == 0 {
		return nil, nil
	}
	return s.store.UpdateNodeStatuses(func(yield func(node.ID, []func(*store.NodeStatus)) bool) {
		for _, n := range due {
			if len(n.taken) > 0 && !yield(n.id, n.taken) {
				return
			}
		}
	}) //nolint:wrapcheck // write says what it was for
}

// take returns the nodes that have changes, and takes these. It is called under writing.
func (s *statuses) take() []*gathered {
	s.mu.Lock()
	defer s.mu.Unlock()
	due := s.due
	s.due, s.spare = s.spare, nil
	for _, n := range due {
		n.taken, n.changes, n.isDue = n.changes, n.taken[:0], false
	}
	return due
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
