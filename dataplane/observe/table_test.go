package observe_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/dataplane/observe"
)

var (
	start  = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	client = netip.MustParseAddr("10.0.0.1")
)

func name(t testing.TB, s string) domain.Name {
	t.Helper()
	n, err := domain.ParseName(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func answer(t testing.TB, at, life time.Duration, names []string, addresses ...string) observe.Answer {
	t.Helper()
	a := observe.Answer{Client: client, LearnedAt: start.Add(at), ExpiresAt: start.Add(at + life)}
	for _, n := range names {
		a.Names = append(a.Names, name(t, n))
	}
	for _, s := range addresses {
		a.Addresses = append(a.Addresses, observe.Address{Address: netip.MustParseAddr(s), Names: len(names)})
		a.Question = observe.QuestionFor(netip.MustParseAddr(s))
	}
	return a
}

func texts(mappings []observe.Mapping) []string {
	var all []string
	for _, m := range mappings {
		all = append(all, m.Domain.String()+" "+m.Address.String())
	}
	return all
}

func TestExpiryIsProlongedNeverShortened(t *testing.T) {
	table := observe.NewTable(0, 0)
	table.Record(answer(t, 0, time.Hour, []string{"a.example"}, "192.0.2.1"))
	table.Record(answer(t, time.Minute, time.Minute, []string{"a.example"}, "192.0.2.1"))
	live := table.Live(start.Add(30*time.Minute), nil)
	if len(live) != 1 {
		t.Fatalf("got %v, want one mapping", live)
	}
	m := live[0]
	if !m.FirstSeen.Equal(start) || !m.LastSeen.Equal(start.Add(time.Minute)) || !m.ExpiresAt.Equal(start.Add(time.Hour)) {
		t.Errorf("got first %v, last %v, expiry %v", m.FirstSeen, m.LastSeen, m.ExpiresAt)
	}
	if live := table.Live(start.Add(time.Hour), nil); len(live) != 0 {
		t.Errorf("at its expiry: got %v, want none", texts(live))
	}
	if n := table.Expire(start.Add(time.Hour)); n != 1 || table.Len() != 0 {
		t.Errorf("expired %d, %d left; want 1, 0", n, table.Len())
	}
}

func TestOldestExpiryGoesFirst(t *testing.T) {
	table := observe.NewTable(3, 2)
	table.Record(answer(t, 0, 3*time.Hour, []string{"a.example"}, "192.0.2.1"))
	table.Record(answer(t, 0, 1*time.Hour, []string{"a.example"}, "192.0.2.2"))
	table.Record(answer(t, 0, 2*time.Hour, []string{"a.example"}, "192.0.2.3")) // third of the name: .2 goes
	table.Record(answer(t, 0, 1*time.Hour, []string{"b.example"}, "192.0.2.4"))
	table.Record(answer(t, 0, 9*time.Hour, []string{"c.example"}, "192.0.2.5")) // fourth: b goes
	want := []string{"a.example 192.0.2.1", "a.example 192.0.2.3", "c.example 192.0.2.5"}
	if got := texts(table.Live(start, nil)); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := table.Evicted(); got != 2 {
		t.Errorf("evicted: got %d, want 2", got)
	}
}

func TestOneNameAtBothLimits(t *testing.T) {
	table := observe.NewTable(1, 1)
	for _, address := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"} {
		table.Record(answer(t, 0, time.Hour, []string{"a.example"}, address))
	}
	if got := texts(table.Live(start, nil)); !slices.Equal(got, []string{"a.example 192.0.2.3"}) {
		t.Errorf("got %v", got)
	}
	if n := table.Expire(start.Add(2 * time.Hour)); n != 1 {
		t.Errorf("expired %d, want 1", n)
	}
}

func TestAliasesThatLeftTheChainOwnWhileTheyLive(t *testing.T) {
	table := observe.NewTable(0, 0)
	table.Record(answer(t, 0, time.Hour, []string{"a.example", "old.cdn"}, "192.0.2.1"))
	table.Record(answer(t, time.Minute, 2*time.Hour, []string{"a.example", "new.cdn"}, "192.0.2.1"))
	owners := func(at time.Duration) []string {
		var names []string
		for o := range table.Owners(start.Add(at), nil) {
			names = append(names, o.Name.String())
		}
		slices.Sort(names)
		return names
	}
	if got, want := owners(30*time.Minute), []string{"a.example", "new.cdn", "old.cdn"}; !slices.Equal(got, want) {
		t.Errorf("while all live: got %v, want %v", got, want)
	}
	if got, want := owners(90*time.Minute), []string{"a.example", "new.cdn"}; !slices.Equal(got, want) {
		t.Errorf("after the old chain: got %v, want %v", got, want)
	}
}

func TestOnlyTheLastAnswerIsProlonged(t *testing.T) {
	table := observe.NewTable(0, 0)
	table.Record(answer(t, 0, time.Minute, []string{"a.example"}, "192.0.2.1"))
	table.Record(answer(t, 1, time.Minute, []string{"a.example"}, "192.0.2.2"))
	table.Record(answer(t, 0, time.Minute, []string{"a.example"}, "2001:db8::1")) // another family
	hints := answer(t, 2, time.Minute, []string{"a.example"}, "192.0.2.3")
	hints.Question = 65 // HTTPS: the kernel tells of each later expiry
	table.Record(hints)
	want := []string{"a.example 192.0.2.2", "a.example 2001:db8::1"}
	got := texts(table.Expiring(start.Add(time.Hour)))
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("expiring: got %v, want %v", got, want)
	}
	table.Prolong(name(t, "a.example"), netip.MustParseAddr("192.0.2.2"), start.Add(time.Hour))
	if got := texts(table.Live(start.Add(30*time.Minute), nil)); !slices.Equal(got, want[:1]) {
		t.Errorf("live: got %v, want %v", got, want[:1])
	}
}

func TestChangesAreStateNotHistory(t *testing.T) {
	table := observe.NewTable(0, 0)
	_, begin, more := table.Changes(0, 0)
	for i := range 10_000 {
		table.Record(answer(t, time.Duration(i), time.Hour, []string{"busy.example"}, "192.0.2.1"))
	}
	table.Record(answer(t, 0, time.Hour, []string{"a.example"}, "192.0.2.2"))
	select {
	case <-more:
	default:
		t.Error("the channel is not closed after a change")
	}
	changed, next, _ := table.Changes(begin, 0)
	if want := []string{"busy.example 192.0.2.1", "a.example 192.0.2.2"}; !slices.Equal(texts(changed), want) {
		t.Errorf("got %v, want %v", texts(changed), want)
	}
	table.Record(answer(t, 0, 2*time.Hour, []string{"busy.example"}, "192.0.2.1"))
	changed, last, more := table.Changes(next, 0)
	if want := []string{"busy.example 192.0.2.1"}; !slices.Equal(texts(changed), want) {
		t.Errorf("after one more: got %v, want %v", texts(changed), want)
	}
	if changed, _, _ := table.Changes(last, 0); len(changed) != 0 {
		t.Errorf("up to date: got %v, want none", texts(changed))
	}
	select {
	case <-more:
		t.Error("the channel is closed without a change")
	default:
	}
}

func TestChangesInPages(t *testing.T) {
	table := observe.NewTable(0, 0)
	for i := range 7 {
		table.Record(answer(t, 0, time.Hour, []string{string(rune('a'+i)) + ".example"}, "192.0.2.1"))
	}
	var all []string
	cursor := observe.Cursor(0)
	for {
		changed, next, _ := table.Changes(cursor, 3)
		all, cursor = append(all, texts(changed)...), next
		if len(changed) < 3 {
			break
		}
	}
	if len(all) != 7 || !slices.IsSorted(all) {
		t.Errorf("got %v, want seven in order", all)
	}
}

func TestOwnersBelowNames(t *testing.T) {
	table := observe.NewTable(3, 0)
	table.Record(answer(t, 0, 1*time.Hour, []string{"gone.example.com"}, "192.0.2.9"))
	table.Record(answer(t, 0, 2*time.Hour, []string{"www.example.com", "old.cdn.test"}, "192.0.2.1"))
	table.Record(answer(t, 0, 2*time.Hour, []string{"www.example.org", "a.cdn.test"}, "192.0.2.2"))
	table.Record(answer(t, 0, 2*time.Hour, []string{"example.com"}, "192.0.2.3")) // evicts gone
	table.Record(answer(t, 1, 2*time.Hour, []string{"www.example.com", "b.cdn.test"}, "192.0.2.1"))
	for _, c := range []struct {
		base string
		want []string
	}{
		{"example.com", []string{"192.0.2.1", "192.0.2.3"}},
		{"www.example.com", []string{"192.0.2.1"}},
		{"cdn.test", []string{"192.0.2.1", "192.0.2.2"}},
		{"old.cdn.test", []string{"192.0.2.1"}},
		{"gone.example.com", nil},
		{"ample.com", nil},
	} {
		var got []string
		for o := range table.Owners(start, map[string]bool{c.base: true}) {
			got = append(got, o.Address.String())
		}
		slices.Sort(got)
		if got = slices.Compact(got); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.base, got, c.want)
		}
	}
}
