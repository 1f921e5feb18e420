package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/flow"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/controlplane/ingest"
)

// flowEvent makes one of `source destination port policy name …`, `-` for no policy.
func flowEvent(t testing.TB, text string, count uint64, began, seen time.Time) *flow.Event {
	t.Helper()
	words := strings.Fields(text)
	e := &flow.Event{
		Key: flow.Key{
			Reason:      flow.NoRule,
			Workload:    flow.Workload{Address: netip.MustParseAddr(words[0])},
			Destination: flow.Destination{Address: netip.MustParseAddr(words[1]), Protocol: 6},
		},
		Count: count, FirstSeen: began, LastSeen: seen,
	}
	if _, err := fmt.Sscan(words[2], &e.Destination.Port); err != nil {
		t.Fatal(err)
	}
	if words[3] != "-" {
		e.Reason, e.Policy = flow.Rule, "policies/"+words[3]
	}
	for _, word := range words[4:] {
		name, err := domain.ParseName(word)
		if err != nil {
			t.Fatal(err)
		}
		e.Domains = append(e.Domains, name)
	}
	return e
}

func flowFilter(t testing.TB, message *namewardv1.FlowEventFilter) flow.Filter {
	t.Helper()
	filter, err := flow.ParseFilter("filter", message)
	if err != nil {
		t.Fatal(err)
	}
	return filter
}

func flowTexts(events []*ingest.FlowEvent) []string {
	var texts []string
	for _, e := range events {
		texts = append(texts, fmt.Sprintf("%d× %s %s → %s:%d %s %v", e.Count, e.Node, e.Workload.Address, e.Destination.Address, e.Destination.Port, e.Policy, e.Domains))
	}
	return texts
}

func wantFlows(t *testing.T, flows *ingest.Flows, want ...string) {
	t.Helper()
	events, more := flows.List(flow.Filter{}, flow.Position{}, 100)
	if diff := cmp.Diff(want, flowTexts(events)); diff != "" || more {
		t.Errorf("flow events (-want +got), more %t:\n%s", more, diff)
	}
}

// What is told again, as after a reconnect, counts nothing; a count that the agent began anew adds.
func TestFlowEventsAreNeverCountedTwice(t *testing.T) {
	flows := ingest.NewFlows(100)
	id := nodeID(t, "n")
	const what = "10.1.0.7 192.0.2.1 443 -"
	tell := func(count uint64, began, seen int) {
		flows.Observe(id, []*flow.Event{flowEvent(t, what, count, start.Add(time.Duration(began)*time.Second), start.Add(time.Duration(seen)*time.Second))}, start.Add(time.Minute))
	}
	want := func(count uint64, first, last int) {
		t.Helper()
		events, _ := flows.List(flow.Filter{}, flow.Position{}, 10)
		if len(events) != 1 || events[0].Count != count || events[0].FirstSeen.Sub(start).Seconds() != float64(first) || events[0].LastSeen.Sub(start).Seconds() != float64(last) {
			t.Errorf("got %v of %v to %v, want %d of %d to %d", flowTexts(events), events[0].FirstSeen, events[0].LastSeen, count, first, last)
		}
	}
	tell(3, 1, 2)
	tell(3, 1, 2)
	want(3, 1, 2)
	tell(5, 1, 4)
	tell(3, 1, 2) // late
	want(5, 1, 4)
	tell(2, 10, 11) // the agent was restarted
	tell(2, 10, 11)
	want(7, 1, 11)
	tell(4, 10, 12)
	want(9, 1, 12)
	tell(1, 5, 5) // again, and its clock was set back
	tell(2, 5, 6)
	want(11, 1, 12)
	flows.Observe(nodeID(t, "other"), []*flow.Event{flowEvent(t, what, 1, start, start)}, start)
	if stats := flows.Stats(); stats.Events != 2 || stats.Observed != 10 {
		t.Errorf("stats %+v, want 2 events, 10 observed", stats)
	}
}

func TestFlowEventsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		flows := ingest.NewFlows(3)
		done := make(chan error)
		go func() { done <- flows.Run(ctx) }()
		now := time.Now()
		for i := range 5 {
			seen := now.Add(time.Duration(i%4) * time.Minute) // the last is older than those before
			flows.Observe(nodeID(t, "n"), []*flow.Event{flowEvent(t, fmt.Sprintf("10.1.0.7 192.0.2.1 %d -", i), 1, now, seen)}, now.Add(time.Hour))
		}
		const ofN = "1× n 10.1.0.7 → 192.0.2.1:%d  []"
		wantFlows(t, flows, fmt.Sprintf(ofN, 1), fmt.Sprintf(ofN, 2), fmt.Sprintf(ofN, 3))
		if stats := flows.Stats(); stats.Evicted != 2 {
			t.Errorf("stats %+v, want 2 evicted", stats)
		}
		ahead := flowEvent(t, "10.1.0.7 192.0.2.1 9 -", 1, now, now.Add(1000*time.Hour))
		flows.Observe(nodeID(t, "n"), []*flow.Event{ahead}, now) // its clock does not keep it: it is the oldest
		time.Sleep(ingest.FlowAge + 90*time.Second)
		wantFlows(t, flows, fmt.Sprintf(ofN, 2), fmt.Sprintf(ofN, 3))
		flows.Observe(nodeID(t, "n"), []*flow.Event{flowEvent(t, "10.1.0.7 192.0.2.1 7 -", 1, now, now)}, time.Now()) // told too late
		time.Sleep(time.Hour)
		wantFlows(t, flows)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestForgetFlowEventsOfANode(t *testing.T) {
	flows := ingest.NewFlows(100)
	for _, id := range []string{"a", "b", "c"} {
		flows.Observe(nodeID(t, id), []*flow.Event{flowEvent(t, "10.1.0.7 192.0.2.1 443 web a.example", 1, start, start), flowEvent(t, "10.1.0.7 192.0.2.2 443 -", 1, start, start)}, start)
	}
	flows.Forget(nodeID(t, "b"))
	for filter, want := range map[*namewardv1.FlowEventFilter]int{
		{}: 4, {Node: "nodes/b"}: 0, {Domain: "a.example"}: 2, {Address: "192.0.2.0/24"}: 4, {Policy: "policies/web"}: 2,
	} {
		if events, _ := flows.List(flowFilter(t, filter), flow.Position{}, 100); len(events) != want {
			t.Errorf("%v: %d flow events, want %d", filter, len(events), want)
		}
	}
}

func TestWatchFlowEvents(t *testing.T) {
	flows := ingest.NewFlows(100)
	id := nodeID(t, "n")
	tell := func(text string, count uint64) {
		flows.Observe(id, []*flow.Event{flowEvent(t, text, count, start, start.Add(time.Duration(count)))}, start)
	}
	tell("10.1.0.7 192.0.2.1 443 - a.example", 1)
	tell("10.1.0.7 192.0.2.2 443 - b.test", 1)
	watch := flows.Watch(flowFilter(t, &namewardv1.FlowEventFilter{Domain: "*.example"}))
	defer watch.Close()
	if got := flowTexts(watch.Known); len(got) != 1 || !strings.Contains(got[0], "a.example") {
		t.Errorf("known: got %v, want that of a.example", got)
	}
	tell("10.1.0.7 192.0.2.1 443 - a.example", 1) // told again: no news
	tell("10.1.0.7 192.0.2.2 443 - b.test", 2)
	tell("10.1.0.7 192.0.2.1 443 - a.example", 2)
	tell("10.1.0.7 192.0.2.3 443 - c.example", 1)
	for _, want := range []string{"2× n 10.1.0.7 → 192.0.2.1:443  [a.example]", "1× n 10.1.0.7 → 192.0.2.3:443  [c.example]"} {
		e, err := watch.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := flowTexts([]*ingest.FlowEvent{e}); got[0] != want {
			t.Errorf("got %v, want %q", got, want)
		}
	}
	for i := range uint64(20_000) {
		tell("10.1.0.7 192.0.2.1 443 - a.example", i+10)
	}
	for {
		if _, err := watch.Next(t.Context()); err != nil {
			if !errors.Is(err, ingest.ErrSlow) {
				t.Errorf("got %v, want ErrSlow", err)
			}
			return
		}
	}
}

// What the indexes find is what a walk over everything finds, on pages of any size, whatever names came
// and went.
func TestListOfFlowEventsIsWhatAWalkFinds(t *testing.T) {
	names := []string{"a.test", "b.a.test", "ba.test", "test", "x.example"}
	rapid.Check(t, func(rt *rapid.T) {
		flows := ingest.NewFlows(1000)
		model := map[flow.Position]*ingest.FlowEvent{}
		for i := range rapid.IntRange(0, 60).Draw(rt, "told") {
			text := strings.Join(append([]string{
				rapid.SampledFrom([]string{"10.1.0.7", "fd01::7"}).Draw(rt, "source"),
				rapid.SampledFrom([]string{"192.0.2.1", "192.0.3.1", "2001:db8::1"}).Draw(rt, "destination"), "443",
				rapid.SampledFrom([]string{"-", "web", "db"}).Draw(rt, "policy"),
			}, rapid.SliceOfN(rapid.SampledFrom(names), 0, 3).Draw(rt, "names")...), " ")
			id := nodeID(t, rapid.SampledFrom([]string{"n1", "n2"}).Draw(rt, "node"))
			e := flowEvent(t, text, uint64(i+1), start, start) //nolint:gosec // not negative
			model[flow.Position{Node: id, Key: e.Key}] = &ingest.FlowEvent{Node: id, Event: *e}
			flows.Observe(id, []*flow.Event{e}, start)
		}
		filter := flowFilter(t, &namewardv1.FlowEventFilter{
			Domain:   rapid.SampledFrom([]string{"", "a.test", "*.a.test", "*.test", "test", "*", "b*.test", "*.*a.test"}).Draw(rt, "domain filter"),
			Address:  rapid.SampledFrom([]string{"", "192.0.2.1", "192.0.0.0/16", "::/0"}).Draw(rt, "address filter"),
			Node:     rapid.SampledFrom([]string{"", "nodes/n1", "nodes/none"}).Draw(rt, "node filter"),
			Policy:   rapid.SampledFrom([]string{"", "policies/web", "policies/none"}).Draw(rt, "policy filter"),
			Workload: rapid.SampledFrom([]string{"", "10.1.0.0/24", "host"}).Draw(rt, "workload filter"),
		})
		var want, got []*ingest.FlowEvent
		for _, e := range model {
			if filter.Match(e.Node, &e.Event) {
				want = append(want, e)
			}
		}
		slices.SortFunc(want, func(a, b *ingest.FlowEvent) int { return a.Position().Compare(b.Position()) })
		limit := rapid.IntRange(1, 5).Draw(rt, "limit")
		for after, more := (flow.Position{}), true; more; {
			var page []*ingest.FlowEvent
			if page, more = flows.List(filter, after, limit); len(page) > 0 {
				after = page[len(page)-1].Position()
			}
			got = append(got, page...)
		}
		if diff := cmp.Diff(flowTexts(want), flowTexts(got)); diff != "" {
			rt.Errorf("filter %+v (-want +got):\n%s", filter, diff)
		}
		if diff := cmp.Diff(flowTexts(want), flowTexts(flows.Watch(filter).Known)); diff != "" {
			rt.Errorf("watch of %+v (-want +got):\n%s", filter, diff)
		}
	})
}

func BenchmarkObserveFlows(b *testing.B) {
	flows := ingest.NewFlows(262_144)
	id := nodeID(b, "n")
	for i := range b.N {
		e := flowEvent(b, fmt.Sprintf("10.%d.%d.7 192.0.2.%d %d - a%d.example", i>>8&255, i&255, i&255, i&1023, i&4095), 1, start, start)
		flows.Observe(id, []*flow.Event{e}, start)
	}
}
