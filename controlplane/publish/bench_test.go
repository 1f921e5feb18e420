package publish_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/controlplane/policy"
	"github.com/nameward/nameward/controlplane/publish"
)

// One change among 10,000 policies: until each of 1,000 nodes with labels of their own has its bytes.
func BenchmarkPublish(b *testing.B) {
	s := newSource()
	s.change(func(policies map[string]*policy.Policy) {
		for i := range 10_000 {
			p, err := policy.Parse(allow(fmt.Sprintf("p%d", i), "", fmt.Sprintf("h%d.example.com", i)))
			if err != nil {
				b.Fatal(err)
			}
			policies[p.Name] = p
		}
	})
	p := publish.New(s)
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	subscriptions := make([]*publish.Subscription, 1000)
	held := make([]*publish.Event, len(subscriptions))
	for i := range subscriptions {
		subscriptions[i] = p.Subscribe(map[string]string{"own": fmt.Sprint(i)})
		defer subscriptions[i].Close()
		held[i], _ = subscriptions[i].Newest()
		subscriptions[i].Delivered(held[i])
	}
	b.ReportAllocs()
	for change := 0; b.Loop(); change++ {
		_, changed := subscriptions[0].Newest()
		s.put(b, allow("p0", "", fmt.Sprintf("changed%d.example.com", change)))
		<-changed
		for i, subscription := range subscriptions {
			for newest, superseded := subscription.Newest(); newest == held[i]; newest, _ = subscription.Newest() {
				<-superseded
			}
			newest, _ := subscription.Newest()
			if _, err := newest.ChangesFrom(held[i].Content); err != nil {
				b.Fatal(err)
			}
			held[i] = newest
			subscription.Delivered(newest)
		}
	}
	cancel()
	if err := <-done; err != nil {
		b.Error(err)
	}
}

// listed is a source whose policies are in a list that stays, as the store's do while domain sets change.
type listed struct {
	mu       sync.Mutex // guards all below
	snapshot policy.Snapshot
	revision uint64
	changed  chan struct{}
}

func (s *listed) Snapshot() (policy.Snapshot, uint64, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.snapshot, s.revision, s.changed
}

func (s *listed) put(set *policy.DomainSet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.snapshot.DomainSets = map[string]*policy.DomainSet{set.Name: set}
	s.revision++
	close(s.changed)
	s.changed = make(chan struct{})
}

// One pattern of a domain set that one of 100,000 policies names: until it is published.
func BenchmarkPublishDomainSet(b *testing.B) {
	setOf := func(version int) *policy.DomainSet {
		pattern, err := domain.ParsePattern(fmt.Sprintf("v%d.example.com", version))
		if err != nil {
			b.Fatal(err)
		}
		return &policy.DomainSet{DomainSet: ruleset.NewDomainSet("domainSets/s", []domain.Pattern{pattern})}
	}
	s := &listed{revision: 1, changed: make(chan struct{})}
	for i := range 100_000 {
		message := allow(fmt.Sprintf("p%06d", i), "", fmt.Sprintf("h%d.example.com", i))
		if i == 50_000 {
			message.Rules[0].DomainSets = []string{"domainSets/s"}
		}
		p, err := policy.Parse(message)
		if err != nil {
			b.Fatal(err)
		}
		s.snapshot.Policies = append(s.snapshot.Policies, p)
	}
	s.put(setOf(0))
	p := publish.New(s)
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	subscription := p.Subscribe(nil)
	for version := 1; b.Loop(); version++ {
		newest, changed := subscription.Newest()
		subscription.Delivered(newest)
		s.put(setOf(version))
		<-changed
	}
	subscription.Close()
	cancel()
	if err := <-done; err != nil {
		b.Error(err)
	}
}
