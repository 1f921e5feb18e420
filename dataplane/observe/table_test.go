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

// drops tells what gave way.
func drops(dropped []observe.Dropped) []string {
	var all []string
	for _, d := range dropped {
		text := d.Address.String()
		for _, n := range d.Names {
			text += " " + n.String()
		}
		all = append(all, text)
	}
	return all
}

func TestTheOldestAddressOfANameGoesFirst(t *testing.T) {
	table := observe.NewTable(0, 3)
	for i, address := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"} {
		// The first lives longest: age is by the last answer.
		table.Record(answer(t, time.Duration(i)*time.Second, time.Duration(9-i)*time.Hour, []string{"a.example", "cdn.test"}, address))
	}
	table.Record(answer(t, 3*time.Second, time.Hour, []string{"a.example"}, "192.0.2.1"))
	got := table.Record(answer(t, 4*time.Second, time.Hour, []string{"a.example"}, "192.0.2.4", "192.0.2.5"))
	if want := []string{"192.0.2.2 a.example cdn.test", "192.0.2.3 a.example cdn.test"}; !slices.Equal(drops(got), want) {
		t.Errorf("gave way: got %v, want %v", drops(got), want)
	}
	if got := table.Record(answer(t, 5*time.Second, time.Hour, []string{"b.example"}, "192.0.2.6")); len(got) != 0 {
		t.Errorf("another name: %v gave way", drops(got))
	}
	// All that one answer says stays, whatever came before it at the same moment.
	got = table.Record(answer(t, 5*time.Second, time.Minute, []string{"a.example"}, "192.0.2.7", "192.0.2.8", "192.0.2.9"))
	if want := []string{"192.0.2.1 a.example cdn.test", "192.0.2.4 a.example", "192.0.2.5 a.example"}; !slices.Equal(drops(got), want) {
		t.Errorf("gave way: got %v, want %v", drops(got), want)
	}
	if inAll, ofName := table.Evicted(); inAll != 0 || ofName != 5 {
		t.Errorf("evicted: got %d in all, %d of names, want 0, 5", inAll, ofName)
	}
}

func TestWhatExpiredGivesWayUncounted(t *testing.T) {
	table := observe.NewTable(2, 1)
	table.Record(answer(t, 0, time.Minute, []string{"a.example"}, "192.0.2.1"))
	table.Record(answer(t, 2*time.Minute, time.Hour, []string{"a.example"}, "192.0.2.2"))
	table.Record(answer(t, 2*time.Minute, time.Minute, []string{"b.example"}, "192.0.2.3"))
	table.Record(answer(t, 4*time.Minute, time.Hour, []string{"c.example"}, "192.0.2.4"))
	if inAll, ofName := table.Evicted(); inAll != 0 || ofName != 0 {
		t.Errorf("evicted: got %d in all, %d of names, want none: they had expired", inAll, ofName)
	}
	if got, want := texts(table.Live(start.Add(5*time.Minute), nil)), []string{"a.example 192.0.2.2", "c.example 192.0.2.4"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// A flood of answers that live long does not push out those that live shortly as they come.
func TestTheOldestMappingGoesFirst(t *testing.T) {
	table := observe.NewTable(2, 0)
	for i, name := range []string{"a.example", "b.example", "c.example"} {
		table.Record(answer(t, time.Duration(i)*time.Second, 24*time.Hour, []string{name}, "192.0.2.1"))
	}
	table.Record(answer(t, 3*time.Second, time.Minute, []string{"short.example"}, "192.0.2.1"))
	table.Record(answer(t, 4*time.Second, 24*time.Hour, []string{"d.example"}, "192.0.2.1"))
	if got, want := texts(table.Live(start, nil)), []string{"d.example 192.0.2.1", "short.example 192.0.2.1"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if inAll, _ := table.Evicted(); inAll != 3 {
		t.Errorf("evicted: got %d, want 3", inAll)
	}
}

func TestRestoreKeepsTheNewestOfAName(t *testing.T) {
	var known []observe.Mapping
	for i, address := range []string{"192.0.2.3", "192.0.2.1", "192.0.2.2"} {
		known = append(known, observe.Mapping{
			Domain: name(t, "a.example"), Address: netip.MustParseAddr(address),
			LastSeen: start.Add(time.Duration(2-i) * time.Second), ExpiresAt: start.Add(time.Hour),
		})
	}
	table := observe.NewTable(0, 2)
	if got, want := drops(table.Restore(known)), []string{"192.0.2.2 a.example"}; !slices.Equal(got, want) {
		t.Errorf("gave way: got %v, want %v", got, want)
	}
}

func TestOwnersOfAnAddress(t *testing.T) {
	table := observe.NewTable(0, 0)
	owners := func(at time.Duration) []string {
		var names []string
		for o := range table.OwnersOf(start.Add(at), netip.MustParseAddr("192.0.2.1")) {
			names = append(names, o.Name.String())
		}
		slices.Sort(names)
		return names
	}
	for i, n := range []string{"a.example", "b.example", "c.example"} {
		table.Record(answer(t, 0, time.Duration(1+i)*time.Minute, []string{n, "cdn.test"}, "192.0.2.1", "192.0.2.2"))
	}
	for at, want := range map[time.Duration][]string{
		0:               {"a.example", "b.example", "c.example", "cdn.test", "cdn.test", "cdn.test"},
		time.Minute:     {"b.example", "c.example", "cdn.test", "cdn.test"},
		2 * time.Minute: {"c.example", "cdn.test"},
	} {
		if got := owners(at); !slices.Equal(got, want) {
			t.Errorf("after %v: got %v, want %v", at, got, want)
		}
	}
	for _, at := range []time.Duration{2 * time.Minute, 3 * time.Minute} {
		table.Expire(start.Add(at))
	}
	if got := owners(0); len(got) != 0 {
		t.Errorf("after all expired: got %v", got)
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

func TestDroppedMappingsAreTold(t *testing.T) {
	table := observe.NewTable(0, 1)
	table.Record(answer(t, 0, time.Hour, []string{"a.example"}, "192.0.2.1"))
	_, begin, _ := table.Changes(0, 0)
	table.Record(answer(t, time.Minute, time.Hour, []string{"a.example"}, "192.0.2.2"))
	changed, _, _ := table.Changes(begin, 0)
	if want := []string{"a.example 192.0.2.1", "a.example 192.0.2.2"}; !slices.Equal(texts(changed), want) {
		t.Fatalf("got %v, want %v", texts(changed), want)
	}
	if !changed[0].Dropped || !changed[0].ExpiresAt.Equal(start.Add(time.Minute)) || changed[1].Dropped {
		t.Errorf("got %+v, want the first dropped when the second came", changed)
	}
	for i := range 10_000 {
		table.Record(answer(t, time.Duration(i), time.Hour, []string{"a.example"}, netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}).String()))
	}
	if all, _, _ := table.Changes(0, 0); len(all) > 2000 {
		t.Errorf("%d changes are kept of one mapping", len(all))
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
