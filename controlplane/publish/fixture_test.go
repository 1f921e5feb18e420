package publish_test

import (
	"context"
	"maps"
	"slices"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/controlplane/policy"
	"github.com/nameward/nameward/controlplane/publish"
)

// source holds policies and domain sets as the store does.
type source struct {
	mu         sync.Mutex // guards all below
	policies   map[string]*policy.Policy
	domainSets map[string]*policy.DomainSet
	revision   uint64
	changed    chan struct{}
}

func newSource() *source {
	return &source{policies: map[string]*policy.Policy{}, domainSets: map[string]*policy.DomainSet{}, revision: 1, changed: make(chan struct{})}
}

func (s *source) Snapshot() (policy.Snapshot, uint64, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*policy.Policy
	for _, p := range s.policies {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *policy.Policy) int { return a.Rules.Compare(b.Rules) })
	return policy.Snapshot{Policies: all, DomainSets: maps.Clone(s.domainSets)}, s.revision, s.changed
}

func (s *source) change(edit func(map[string]*policy.Policy)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	edit(s.policies)
	s.revision++
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *source) put(t testing.TB, message *namewardv1.Policy) {
	t.Helper()
	p, err := policy.Parse(message)
	if err != nil {
		t.Fatal(err)
	}
	s.change(func(policies map[string]*policy.Policy) { policies[p.Name] = p })
}

// putSet makes or replaces a domain set.
func (s *source) putSet(set ruleset.DomainSet) {
	s.change(func(map[string]*policy.Policy) { s.domainSets[set.Name] = &policy.DomainSet{DomainSet: set} })
}

func allow(name, role string, domains ...string) *namewardv1.Policy {
	p := &namewardv1.Policy{
		Name:  "policies/" + name,
		Rules: []*namewardv1.Rule{{Action: namewardv1.Rule_ALLOW, Domains: domains}},
	}
	if role != "" {
		p.NodeSelector = &namewardv1.NodeSelector{MatchLabels: map[string]string{"role": role}}
	}
	return p
}

// follower is a stream and the node behind it.
type follower struct {
	labels       map[string]string
	subscription *publish.Subscription
	// sent is what the stream sent last; nil on a new stream.
	sent     *publish.Event
	received int
	holds    *ruleset.RuleSet
}

func (f *follower) connect(p *publish.Publisher) {
	f.disconnect()
	f.subscription, f.sent = p.Subscribe(f.labels), nil
}

func (f *follower) disconnect() {
	if f.subscription != nil {
		f.subscription.Close()
		f.subscription = nil
	}
}

// follow does what a stream does: the changes since what it sent, or on a new stream since what the node
// says it holds if that is remembered, or else the whole.
func (f *follower) follow(t *rapid.T, p *publish.Publisher) {
	newest, _ := f.subscription.Newest()
	base, known := p.Remembered(f.holds.ID())
	if f.sent != nil {
		base, known = f.sent.Content, true
	}
	var messages [][]byte
	var err error
	if known {
		messages, err = newest.ChangesFrom(base)
	} else {
		f.holds = &ruleset.RuleSet{}
		messages, err = newest.Snapshot()
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, message := range messages {
		var response agentv1.SyncResponse
		if err := proto.Unmarshal(message, &response); err != nil {
			t.Fatal(err)
		}
		if f.holds, err = f.holds.With(response.GetChanges()); err != nil {
			t.Fatal(err)
		}
	}
	if got := f.holds.ID(); got != newest.ID {
		t.Fatalf("the changes lead to %v, not to the announced %v", got, newest.ID)
	}
	f.received++
	f.sent = newest
	f.subscription.Delivered(newest)
}

// run starts a publisher in the bubble; the function returned ends it.
func run(t *testing.T, p *publish.Publisher) func() {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
