package publish_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/controlplane/compile"
	"github.com/nameward/nameward/controlplane/policy"
	"github.com/nameward/nameward/controlplane/publish"
)

// What a node holds after any sequence of changes, pauses, breaks and returns is what compile says.
func TestFollowersHoldWhatCompileSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// The wrapper hides the test's deadline, which must not be asked for in a bubble.
		rapid.Check(struct{ testing.TB }{t}, func(rt *rapid.T) {
			s := newSource()
			p := publish.New(s)
			stop := run(t, p)
			defer stop()
			roles := []string{"", "web", "db"}
			followers := make([]*follower, 4)
			for i := range followers {
				followers[i] = &follower{labels: map[string]string{"role": roles[i%3], "own": fmt.Sprint(i)}, holds: &ruleset.RuleSet{}}
				followers[i].connect(p)
			}
			names, setNames := rapid.SampledFrom([]string{"a", "b", "c"}), rapid.SampledFrom([]string{"domainSets/x", "domainSets/y"})
			domains := rapid.SliceOf(rapid.SampledFrom([]string{"x.test", "*.y.test", "z-*.test"}))
			putSet := func(rt *rapid.T, name string) {
				parsed, err := policy.ParseDomains(domains.Draw(rt, "domains"), 0)
				if err != nil {
					rt.Fatal(err)
				}
				s.putSet(ruleset.NewDomainSet(name, parsed))
			}
			putSet(rt, "domainSets/x")
			putSet(rt, "domainSets/y")
			one := rapid.Custom(func(t *rapid.T) *follower { return rapid.SampledFrom(followers).Draw(t, "follower") })
			rt.Repeat(map[string]func(*rapid.T){
				"put": func(rt *rapid.T) {
					message := allow(names.Draw(rt, "name"), rapid.SampledFrom(roles).Draw(rt, "role"), rapid.SampledFrom([]string{"x.test", "*.y.test"}).Draw(rt, "domain"))
					message.Priority = rapid.Int32Range(0, 2).Draw(rt, "priority")
					message.Mode = rapid.SampledFrom([]namewardv1.Policy_Mode{namewardv1.Policy_ENFORCE, namewardv1.Policy_DISABLED}).Draw(rt, "mode")
					message.Rules[0].DomainSets = rapid.SliceOfDistinct(setNames, rapid.ID).Draw(rt, "sets")
					s.put(t, message)
				},
				"put set": func(rt *rapid.T) { putSet(rt, setNames.Draw(rt, "set")) },
				"delete": func(rt *rapid.T) {
					name := names.Draw(rt, "name")
					s.change(func(policies map[string]*policy.Policy) { delete(policies, "policies/"+name) })
				},
				"follow":    func(rt *rapid.T) { one.Draw(rt, "who").follow(rt, p) },
				"reconnect": func(rt *rapid.T) { one.Draw(rt, "who").connect(p) },
				"pause":     func(*rapid.T) { time.Sleep(time.Second); synctest.Wait() },
				"forget": func(rt *rapid.T) {
					f := one.Draw(rt, "who")
					f.connect(p)
					f.holds = &ruleset.RuleSet{}
				},
			})
			time.Sleep(time.Second)
			synctest.Wait()
			snapshot, _, _ := s.Snapshot()
			for _, f := range followers {
				f.follow(rt, p)
				if got, want := f.holds.ID(), compile.Compile(snapshot, f.labels).ID(); got != want {
					rt.Errorf("node %v holds %v, compile says %v", f.labels, got, want)
				}
				f.disconnect()
			}
		})
	})
}

func TestOnlyConcernedNodesAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		p := publish.New(s)
		stop := run(t, p)
		defer stop()
		web, db := p.Subscribe(map[string]string{"role": "web"}), p.Subscribe(map[string]string{"role": "db"})
		twin := p.Subscribe(map[string]string{"role": "web", "zone": "east"})
		defer web.Close()
		defer db.Close()
		defer twin.Close()
		_, webChanged := web.Newest()
		dbBefore, dbChanged := db.Newest()

		s.put(t, allow("a", "web", "x.test"))
		<-webChanged
		synctest.Wait()
		select {
		case <-dbChanged:
			t.Error("a node that the policy does not select was told of it")
		default:
		}
		webEvent, _ := web.Newest()
		if dbNow, _ := db.Newest(); dbNow != dbBefore || webEvent.Revision != 2 {
			t.Errorf("revisions: web %d, db %d", webEvent.Revision, dbNow.Revision)
		}
		if twinEvent, _ := twin.Newest(); twinEvent.Content != webEvent.Content {
			t.Error("nodes with equal rule sets do not share them")
		}
	})
}

func TestIdlePublishesAtOnceAndBurstsAreGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		p := publish.New(s)
		stop := run(t, p)
		defer stop()
		subscription := p.Subscribe(nil)
		defer subscription.Close()
		time.Sleep(time.Second)
		e, changed := subscription.Newest()
		subscription.Delivered(e)

		began := time.Now()
		s.put(t, allow("a", "", "a.test"))
		<-changed
		if waited := time.Since(began); waited != 0 {
			t.Errorf("an idle publisher waited %v", waited)
		}
		// The stream takes its time: the next publication waits for it, and is of all that came meanwhile.
		_, changed = subscription.Newest()
		for i := range 10 {
			s.put(t, allow("b", "", fmt.Sprintf("b%d.test", i)))
		}
		time.Sleep(40 * time.Millisecond)
		e, _ = subscription.Newest()
		subscription.Delivered(e)
		<-changed
		newest, _ := subscription.Newest()
		if waited := time.Since(began); waited != 40*time.Millisecond || newest.Revision != 12 {
			t.Errorf("revision %d was published after %v, want 12 after 40ms", newest.Revision, waited)
		}
		// What comes in a burst waits longer, so that fan-outs do not take all the time.
		_, changed = subscription.Newest()
		began = time.Now()
		s.put(t, allow("c", "", "c1.test"))
		time.Sleep(20 * time.Millisecond)
		subscription.Delivered(newest)
		<-changed
		newest, _ = subscription.Newest()
		if waited := time.Since(began); waited != 80*time.Millisecond || newest.Revision != 13 {
			t.Errorf("revision %d was published after %v, want 13 after 80ms", newest.Revision, waited)
		}
		// A stream that is stuck delays the others by no more than the bound.
		_, changed = subscription.Newest()
		began = time.Now()
		s.put(t, allow("c", "", "c.test"))
		<-changed
		if waited := time.Since(began); waited > 251*time.Millisecond {
			t.Errorf("waited %v for a stuck stream", waited)
		}
	})
}

func TestMessagesAreBounded(t *testing.T) {
	s := newSource()
	for i := range 100 {
		s.put(t, allow(fmt.Sprintf("p%d", i), "", strings.Repeat("a", 60)+".test"))
	}
	large := allow("p50-large", "")
	for i := range 20000 {
		large.Rules[0].Domains = append(large.Rules[0].Domains, fmt.Sprintf("name-%d.test", i))
	}
	s.put(t, large)
	subscription := publish.New(s).Subscribe(nil)
	defer subscription.Close()
	e, _ := subscription.Newest()
	messages, err := e.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	for i, message := range messages {
		var response agentv1.SyncResponse
		if err := proto.Unmarshal(message, &response); err != nil {
			t.Fatal(err)
		}
		if len(message) > 64<<10 && len(response.GetChanges()) != 1 {
			t.Errorf("message %d of %d bytes holds %d changes", i, len(message), len(response.GetChanges()))
		}
	}
	if len(messages) != 3 {
		t.Errorf("%d messages, want the large policy alone between two others", len(messages))
	}
}

// The wire rule of SyncService: the concatenated encodings of two responses are the encoding of both.
func TestConcatenatedEncodingsAreBothInOrder(t *testing.T) {
	changes := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) *agentv1.RuleSetChange {
		name := rapid.SampledFrom([]string{"policies/a", "policies/b"}).Draw(t, "name")
		if rapid.Bool().Draw(t, "delete") {
			return &agentv1.RuleSetChange{Change: &agentv1.RuleSetChange_DeletePolicy{DeletePolicy: name}}
		}
		p, err := ruleset.ParsePolicy(&namewardv1.Policy{Name: name, Priority: rapid.Int32().Draw(t, "priority")})
		if err != nil {
			t.Fatal(err)
		}
		return &agentv1.RuleSetChange{Change: &agentv1.RuleSetChange_PutPolicy{PutPolicy: p.ToProto()}}
	}), 0, 4)
	rapid.Check(t, func(t *rapid.T) {
		held := &ruleset.RuleSet{}
		var both []byte
		var last *agentv1.SyncResponse
		for range 2 {
			response := &agentv1.SyncResponse{
				StoreId: "s", Revision: rapid.Uint64Min(1).Draw(t, "revision"), RuleSetId: rapid.SliceOfN(rapid.Byte(), 1, 4).Draw(t, "id"),
				Changes: changes.Draw(t, "changes"), Complete: true, AcknowledgedBatch: rapid.Uint64Min(1).Draw(t, "batch"),
			}
			encoded, err := proto.Marshal(response)
			if err != nil {
				t.Fatal(err)
			}
			both = append(both, encoded...)
			if held, err = held.With(response.GetChanges()); err != nil {
				t.Fatal(err)
			}
			last = response
		}
		var merged agentv1.SyncResponse
		if err := proto.Unmarshal(both, &merged); err != nil {
			t.Fatal(err)
		}
		heldOfMerged, err := (&ruleset.RuleSet{}).With(merged.GetChanges())
		if err != nil {
			t.Fatal(err)
		}
		merged.Changes, last.Changes = nil, nil
		if heldOfMerged.ID() != held.ID() || !proto.Equal(&merged, last) {
			t.Errorf("merged %v and %v, one after the other %v and %v", heldOfMerged.ID(), &merged, held.ID(), last)
		}
	})
}

// A policy that is deleted and made again as it was gives a content that is known, of the policy that is gone.
func TestAPolicyThatWasMadeAgainCanBeDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		p := publish.New(s)
		stop := run(t, p)
		defer stop()
		subscription := p.Subscribe(nil)
		defer subscription.Close()
		remove := func(policies map[string]*policy.Policy) { delete(policies, "policies/a") }
		for _, change := range []func(){
			func() { s.put(t, allow("a", "", "a.test")) },
			func() { s.change(remove) },
			func() { s.put(t, allow("a", "", "a.test")) },
			func() { s.put(t, allow("b", "", "b.test")) },
			func() { s.change(remove) },
		} {
			newest, changed := subscription.Newest()
			subscription.Delivered(newest)
			change()
			<-changed
		}
		newest, _ := subscription.Newest()
		if got := newest.RuleSet().Policies; len(got) != 1 || got[0].Name != "policies/b" {
			t.Errorf("got %v, want b alone", got)
		}
	})
}
