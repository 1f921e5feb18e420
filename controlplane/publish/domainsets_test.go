package publish_test

import (
	"fmt"
	"testing"
	"testing/synctest"

	"google.golang.org/protobuf/proto"

	"github.com/nameward/nameward/api/domain"
	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/controlplane/policy"
	"github.com/nameward/nameward/controlplane/publish"
)

// largeSet has 100,000 domains.
func largeSet(t testing.TB) ruleset.DomainSet {
	t.Helper()
	texts := make([]string, 100_000)
	for i := range texts {
		texts[i] = fmt.Sprintf("host-%d.a-rather-long-name.example", i)
	}
	return ruleset.NewDomainSet("domainSets/large", patterns(t, texts...))
}

func patterns(t testing.TB, texts ...string) []domain.Pattern {
	t.Helper()
	list, err := policy.ParseDomains(texts, 0)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// What one changed domain of a set of 100,000 costs a node in bytes does not grow with the set, nor with the
// policies that name it.
func TestOneChangedDomainTravelsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		set := largeSet(t)
		s.putSet(set)
		for i := range 100 {
			p := allow(fmt.Sprintf("p%d", i), "")
			p.Rules[0].DomainSets = []string{set.Name}
			s.put(t, p)
		}
		p := publish.New(s)
		stop := run(t, p)
		defer stop()
		subscription := p.Subscribe(nil)
		defer subscription.Close()
		before, changed := subscription.Newest()
		holds := before.RuleSet()
		for pattern, present := range map[string]bool{"one-more.example": true, "host-7.a-rather-long-name.example": false} {
			set = set.Edited(map[domain.Pattern]bool{patterns(t, pattern)[0]: present})
			s.putSet(set)
			<-changed
			var newest *publish.Event
			newest, changed = subscription.Newest()
			messages, err := newest.ChangesFrom(before.Content)
			if err != nil {
				t.Fatal(err)
			}
			size := 0
			for _, message := range messages {
				size += len(message)
				var response agentv1.SyncResponse
				if err := proto.Unmarshal(message, &response); err != nil {
					t.Fatal(err)
				}
				if holds, err = holds.With(response.GetChanges()); err != nil {
					t.Fatal(err)
				}
			}
			t.Logf("%s: %d bytes", pattern, size)
			if size > 200 {
				t.Errorf("one changed domain is sent in %d bytes", size)
			}
			if holds.ID() != newest.ID {
				t.Error("the changes do not lead to what was announced")
			}
			before = newest
			subscription.Delivered(newest)
		}
	})
}

// A node that comes back is sent what changed meanwhile, unless the set changed so often that to remember all
// of its forms would cost more than to send it.
func TestFormsOfALargeSetAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		set := largeSet(t)
		s.putSet(set)
		policy := allow("p", "")
		policy.Rules[0].DomainSets = []string{set.Name}
		s.put(t, policy)
		p := publish.New(s)
		stop := run(t, p)
		defer stop()
		subscription := p.Subscribe(nil)
		defer subscription.Close()
		var ids []ruleset.ID
		for i := range 20 {
			newest, changed := subscription.Newest()
			ids = append(ids, newest.ID)
			subscription.Delivered(newest)
			set = set.Edited(map[domain.Pattern]bool{patterns(t, fmt.Sprintf("new-%d.example", i))[0]: true})
			s.putSet(set)
			<-changed
		}
		remembered := 0
		for _, id := range ids {
			if _, ok := p.Remembered(id); ok {
				remembered++
			}
		}
		if _, ok := p.Remembered(ids[len(ids)-1]); !ok || remembered < 5 || remembered > 11 {
			t.Errorf("%d of 20 forms are remembered, the last %t, want about ten", remembered, ok)
		}
	})
}
