// Package publish makes the newest rule set of every node known to the stream that serves it. Policies and
// domain sets go in from the store, an Event comes out for each distinct set of labels when its rule set changes. Readers
// follow at their own pace: nothing is queued for them, who is slow skips to the newest. Nodes with equal
// rule sets share one Content and its encodings.
package publish

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nameward/nameward/api/pack"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/controlplane/compile"
	"github.com/nameward/nameward/controlplane/policy"
)

// Source says which policies and domain sets there are, the revision at which any of them last changed, and
// by the closing of a channel that one has changed.
type Source interface {
	Snapshot() (snapshot policy.Snapshot, revision uint64, changed <-chan struct{})
}

const (
	// idleTime is how long a set of labels without a stream stays compiled: its node may come back.
	idleTime = 10 * time.Minute
	// retiredLimit is how many contents are remembered after no node wants them any more, so that a node
	// that comes back gets the changes since.
	retiredLimit = 64
	// retiredDomains bounds the domains of the sets of such contents: a large set that changes often would
	// otherwise be remembered as often.
	retiredDomains = 1 << 20
)

// Publisher compiles for each distinct set of labels. It is safe for concurrent use; Run must be running
// for changes to be seen.
type Publisher struct {
	source  Source
	packer  *pack.Packer
	latency prometheus.Histogram

	mu       sync.Mutex // guards all below
	snapshot policy.Snapshot
	revision uint64
	// counted are the label keys of the snapshot's policies, keys the same in order.
	counted compile.Keys
	keys    []string
	// compiled holds what the current snapshot gives for each projection of labels.
	compiled map[string]*selection
	// contents holds what is wanted, and what of late was: retired, the oldest first.
	contents map[ruleset.ID]*Content
	retired  []*Content
	topics   map[string]*topic
	// published is closed when another snapshot becomes current, publishedAt when the last one did.
	published   chan struct{}
	publishedAt time.Time
}

// topic is a distinct set of labels.
type topic struct {
	labels map[string]string
	// projection is what the labels say of Publisher.keys.
	projection string
	selection  *selection
	newest     atomic.Pointer[Event]
	// subscriptions and the time since when there are none are guarded by Publisher.mu.
	subscriptions map[*Subscription]struct{}
	idleSince     time.Time
}

// New makes a publisher of what the source holds.
func New(source Source) *Publisher {
	p := &Publisher{
		source: source, packer: pack.NewPacker(),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "nameward_server_publish_latency_seconds",
			Help:    "Time from the moment a change of a rule set was seen to the moment it was handed to a node's connection.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		contents: map[ruleset.ID]*Content{},
		topics:   map[string]*topic{},
		counted:  compile.Keys{},

		published: make(chan struct{}),
	}
	snapshot, revision, _ := source.Snapshot()
	p.publish(snapshot, revision)
	return p
}

// Collectors returns the metrics.
func (p *Publisher) Collectors() []prometheus.Collector { return []prometheus.Collector{p.latency} }

// Published returns the revision of the snapshot that is current, and a channel that closes when another
// is, whether that changes any rule set or not.
func (p *Publisher) Published() (revision uint64, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.revision, p.published
}

// Run publishes each change until ctx ends: at once when idle, otherwise when the one before is through.
func (p *Publisher) Run(ctx context.Context) error {
	for {
		snapshot, revision, changed := p.source.Snapshot()
		p.publish(snapshot, revision).wait(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// publish makes a snapshot current and returns the fan-out that this began.
func (p *Publisher) publish(snapshot policy.Snapshot, revision uint64) *fanOut {
	p.mu.Lock()
	defer p.mu.Unlock()
	if revision == p.revision {
		return nil
	}
	now := time.Now()
	fanOut := newFanOut(now, revision-p.revision, now.Sub(p.publishedAt))
	p.publishedAt = now
	change := p.makeCurrent(snapshot, revision)
	for key, t := range p.topics {
		if len(t.subscriptions) == 0 && now.Sub(t.idleSince) > idleTime {
			delete(p.topics, key)
			continue
		}
		before := t.newest.Load()
		t.selection = p.next(t, change)
		if t.selection.content == before.Content {
			continue
		}
		next := newEvent(t.selection.content, revision, now)
		next.follows(before)
		t.newest.Store(next)
		for s := range t.subscriptions {
			s.await(before, fanOut)
		}
		close(before.superseded)
		for s := range t.subscriptions {
			if s.wake != nil {
				s.wake()
			}
		}
	}
	p.retire()
	close(p.published)
	p.published = make(chan struct{})
	fanOut.begun()
	return fanOut
}

// makeCurrent takes a snapshot and returns how its policies differ from those before.
func (p *Publisher) makeCurrent(snapshot policy.Snapshot, revision uint64) compile.Change {
	change := compile.Difference(p.snapshot.Policies, snapshot.Policies)
	p.snapshot, p.revision = snapshot, revision
	p.compiled = map[string]*selection{}
	p.counted.Change(change)
	if keys := p.counted.Sorted(); !slices.Equal(keys, p.keys) {
		p.keys = keys
		for _, t := range p.topics {
			t.projection = compile.Project(t.labels, keys)
		}
	}
	return change
}

// selection is what the current snapshot gives for labels, and the content that this is. A content may be made of
// other policies than these, which say the same: of those that there were before they were deleted and made again.
type selection struct {
	policies   []*policy.Policy
	domainSets []*policy.DomainSet
	content    *Content
}

// next returns what a topic wants after a change of the policies, and perhaps of domain sets.
func (p *Publisher) next(t *topic, change compile.Change) *selection {
	if known, ok := p.compiled[t.projection]; ok {
		return known
	}
	next := t.selection
	concerns := change.Concerns(t.labels)
	if !concerns.IsNone() {
		policies := concerns.Of(next.policies)
		next = p.selectionOf(policies, p.snapshot.DomainSetsOf(policies), next.content)
	} else if sets := p.snapshot.Renewed(next.domainSets); !slices.Equal(sets, next.domainSets) {
		next = p.selectionOf(next.policies, sets, next.content)
	}
	p.compiled[t.projection] = next
	return next
}

// first returns what the current snapshot gives for labels, of which projection is what they say of the keys.
func (p *Publisher) first(labels map[string]string, projection string) *selection {
	if known, ok := p.compiled[projection]; ok {
		return known
	}
	policies := compile.Select(p.snapshot.Policies, labels)
	first := p.selectionOf(policies, p.snapshot.DomainSetsOf(policies), nil)
	p.compiled[projection] = first
	return first
}

// selectionOf returns what policies and the domain sets that they name give; like is a content that has most of them.
func (p *Publisher) selectionOf(policies []*policy.Policy, sets []*policy.DomainSet, like *Content) *selection {
	return &selection{policies, sets, p.intern(newContent(p.packer, policies, sets, like))}
}

// intern returns the content of the same id, if there is one already.
func (p *Publisher) intern(content *Content) *Content {
	if known, ok := p.contents[content.ID]; ok {
		return known
	}
	p.contents[content.ID] = content
	return content
}

// retire lets go of contents that no topic wants, but for the last few.
func (p *Publisher) retire() {
	wanted := make(map[*Content]struct{}, len(p.contents))
	for _, t := range p.topics {
		wanted[t.newest.Load().Content] = struct{}{}
	}
	isWanted := func(c *Content) bool { _, ok := wanted[c]; return ok }
	p.retired = slices.DeleteFunc(p.retired, isWanted)
	for _, content := range p.contents {
		if !isWanted(content) && !slices.Contains(p.retired, content) {
			content.retire()
			p.retired = append(p.retired, content)
		}
	}
	for excess := p.excess(); excess > 0; excess-- {
		delete(p.contents, p.retired[0].ID)
		p.retired = slices.Delete(p.retired, 0, 1)
	}
}

// excess returns how many of the retired contents, the oldest ones, are too much to remember.
func (p *Publisher) excess() int {
	domains, counted := 0, map[*policy.DomainSet]bool{}
	for i, content := range slices.Backward(p.retired) {
		for _, set := range content.domainSets {
			// A set that is current is in memory whoever remembers it.
			if !counted[set] && p.snapshot.DomainSets[set.Name] != set {
				counted[set] = true
				domains += len(set.Domains)
			}
		}
		if domains > retiredDomains || len(p.retired)-i > retiredLimit {
			return i + 1
		}
	}
	return 0
}

// Remembered returns the content of an id, if any node wants it or did of late.
func (p *Publisher) Remembered(id ruleset.ID) (*Content, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	content, ok := p.contents[id]
	return content, ok
}

// Subscribe follows the rule set of a node with these labels. Close must be called.
func (p *Publisher) Subscribe(labels map[string]string) *Subscription { return p.Follow(labels, nil) }

// Follow subscribes, and has a function called when something else is wanted. It must return at once, and may still be
// called while the subscription is closed.
func (p *Publisher) Follow(labels map[string]string, wake func()) *Subscription {
	key := compile.Project(labels, slices.Sorted(maps.Keys(labels)))
	p.mu.Lock()
	defer p.mu.Unlock()
	t, ok := p.topics[key]
	if !ok {
		t = &topic{labels: maps.Clone(labels), projection: compile.Project(labels, p.keys), subscriptions: map[*Subscription]struct{}{}}
		t.selection = p.first(t.labels, t.projection)
		t.newest.Store(newEvent(t.selection.content, p.revision, time.Now()))
		p.topics[key] = t
	}
	s := &Subscription{publisher: p, topic: t, wake: wake}
	t.subscriptions[s] = struct{}{}
	return s
}
