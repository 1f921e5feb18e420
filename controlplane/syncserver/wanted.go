package syncserver

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/controlplane/publish"
	"github.com/nameward/nameward/controlplane/store"
)

const (
	// wantedInterval bounds how often the status of all nodes is gone through while policies change.
	wantedInterval = 250 * time.Millisecond
	// wantedAge is above the time that agents take to acknowledge a change: what they say brings what is wanted of them
	// along, and only of the others it is written by itself.
	wantedAge = 400 * time.Millisecond
)

// wanted keeps the wanted revision in the status of every node, connected or not. It holds a subscription
// for each, so that the revision stays what it is while nothing changes for the node.
type wanted struct {
	store     *store.Store
	publisher *publish.Publisher
	statuses  *statuses
	// self is the id of this server; empty where there is no other.
	self string

	hurry chan struct{} // somebody waits for the status to be true

	mu       sync.Mutex // guards all below
	nodes    map[node.ID]*place
	settled  uint64        // revision of the policies that every status reflects
	progress chan struct{} // closed when settled grows
}

type place struct {
	labels       map[string]string
	subscription *publish.Subscription
	status       *gathered
	// told is what the status says, or will: an acknowledgement brings it too.
	told atomic.Pointer[publish.Event]
}

func newWanted(s *store.Store, publisher *publish.Publisher, statuses *statuses) *wanted {
	return &wanted{
		store: s, publisher: publisher, statuses: statuses, hurry: make(chan struct{}, 1),
		nodes: map[node.ID]*place{}, progress: make(chan struct{}),
	}
}

// follow keeps the revision of a node with these labels from now on.
func (w *wanted) follow(id node.ID, labels map[string]string) *place {
	w.mu.Lock()
	defer w.mu.Unlock()
	former, ok := w.nodes[id]
	if ok && maps.Equal(former.labels, labels) {
		return former
	}
	followed := &place{labels: labels, subscription: w.publisher.Subscribe(labels), status: w.statuses.of(id)}
	w.nodes[id] = followed
	if ok {
		former.subscription.Close()
	}
	return followed
}

// forget ends what follow began.
func (w *wanted) forget(id node.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if place, ok := w.nodes[id]; ok {
		place.subscription.Close()
		delete(w.nodes, id)
		w.statuses.forget(id)
	}
}

// run goes through the nodes after each publication.
func (w *wanted) run(ctx context.Context) error {
	nodes, _ := w.store.Nodes()
	for _, n := range nodes {
		w.follow(n.ID, n.Labels)
	}
	for age := time.Duration(0); ; {
		revision, published := w.publisher.Published()
		began := time.Now()
		left, err := w.update(began.Add(-age))
		if err != nil {
			return err
		}
		interval := max(wantedInterval, statusPart*time.Since(began))
		if !left {
			w.settle(revision)
			select {
			case <-ctx.Done():
				return nil
			case <-published:
			}
		}
		age = wantedAge
		timer := time.NewTimer(interval)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-w.hurry:
			age = 0
		case <-timer.C:
		}
		timer.Stop()
	}
}

// settle says that every status reflects the policies of a revision.
func (w *wanted) settle(revision uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.settled = revision
	close(w.progress)
	w.progress = make(chan struct{})
}

// await returns when every status reflects the policies of a revision, or ctx ends.
func (w *wanted) await(ctx context.Context, revision uint64) {
	for {
		w.mu.Lock()
		settled, progress := w.settled, w.progress
		w.mu.Unlock()
		if settled >= revision {
			return
		}
		select {
		case w.hurry <- struct{}{}:
		default:
		}
		select {
		case <-ctx.Done():
			return
		case <-progress:
		}
	}
}

// update puts what is wanted, and has been since a time, into the statuses. It reports whether it left anything out.
func (w *wanted) update(since time.Time) (left bool, err error) {
	w.mu.Lock()
	for _, place := range w.nodes {
		e, _ := place.subscription.Newest()
		switch {
		case e == place.told.Load():
		case e.Time.After(since):
			left = true
		default:
			place.told.Store(e)
			w.statuses.change(place.status, func(status *store.NodeStatus) { w.want(status, e) })
		}
	}
	w.mu.Unlock()
	return left, w.statuses.write()
}

// newest returns what a node should have; nil when it is not followed.
func (w *wanted) newest(id node.ID) *publish.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	place, ok := w.nodes[id]
	if !ok {
		return nil
	}
	e, _ := place.subscription.Newest()
	return e
}

// want puts an event into a status that does not know of it yet. Servers that came at different times have different
// revisions for the same content: that of a node of another server counts where it is the same.
func (w *wanted) want(status *store.NodeStatus, e *publish.Event) {
	if status.Claim.Server != w.self && status.RuleSetID == e.ID {
		return
	}
	if e.Revision > status.WantedRevision {
		status.WantedRevision, status.WantedTime = e.Revision, e.Time
	}
}
