package publish_test

import (
	"context"
	"fmt"
	"testing"

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
