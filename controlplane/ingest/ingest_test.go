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
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/controlplane/ingest"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func nodeID(t testing.TB, s string) node.ID {
	t.Helper()
	id, err := node.ParseID(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// mapping makes one of `domain alias … address`, which ends after ttl.
func mapping(t testing.TB, from, text string, ends time.Time) *ingest.Mapping {
	t.Helper()
	words := strings.Fields(text)
	m, err := ingest.FromProto(nodeID(t, from), &namewardv1.Mapping{
		Domain: words[0], Chain: words[1 : len(words)-1], Address: words[len(words)-1], ExpireTime: timestamppb.New(ends),
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func observe(t testing.TB, table *ingest.Table, from string, now time.Time, texts ...string) {
	t.Helper()
	table.Observe(nodeID(t, from), batch(t, from, now, texts...), now)
}

func batch(t testing.TB, from string, now time.Time, texts ...string) ingest.Batch {
	t.Helper()
	var b ingest.Batch
	for _, text := range texts {
		b.Mappings = append(b.Mappings, mapping(t, from, text, now.Add(time.Minute)))
	}
	return b
}

func filter(t testing.TB, domain, address, from string) ingest.Filter {
	t.Helper()
	f, err := ingest.ParseFilter(&namewardv1.MappingFilter{Domain: domain, Address: address, Node: from})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func texts(mappings []*ingest.Mapping) []string {
	var out []string
	for _, m := range mappings {
		out = append(out, fmt.Sprintf("%s %s %s", m.Domain, m.Address, m.Node))
	}
	return out
}

func TestListFilters(t *testing.T) {
	table := ingest.New(100)
	observe(t, table, "b", start, "www.example.com cdn.example.net 192.0.2.1", "example.com 192.0.2.2", "a.b.example.com 2001:db8::1")
	observe(t, table, "a", start, "www.example.com 192.0.2.1", "myexample.com 198.51.100.7", `odd\.example.com 192.0.2.9`)
	tests := []struct{ domain, address, node, want string }{
		{"", "", "", "example.com 192.0.2.2 b|a.b.example.com 2001:db8::1 b|www.example.com 192.0.2.1 a|www.example.com 192.0.2.1 b|myexample.com 198.51.100.7 a|odd\\.example.com 192.0.2.9 a"},
		{"example.com", "", "", "example.com 192.0.2.2 b"},
		{"*.example.com", "", "", "a.b.example.com 2001:db8::1 b|www.example.com 192.0.2.1 a|www.example.com 192.0.2.1 b"},
		{"*.example.net", "", "", "www.example.com 192.0.2.1 b"},
		{"cdn.example.net", "", "nodes/a", ""},
		{"", "192.0.2.1", "", "www.example.com 192.0.2.1 a|www.example.com 192.0.2.1 b"},
		{"", "192.0.2.0/24", "nodes/b", "example.com 192.0.2.2 b|www.example.com 192.0.2.1 b"},
		{"", "::/0", "", "a.b.example.com 2001:db8::1 b"},
		{"*.com", "198.51.100.0/24", "", "myexample.com 198.51.100.7 a"},
		{"", "", "nodes/a", "www.example.com 192.0.2.1 a|myexample.com 198.51.100.7 a|odd\\.example.com 192.0.2.9 a"},
		{"", "", "nodes/nobody", ""},
	}
	for _, test := range tests {
		page := table.List(filter(t, test.domain, test.address, test.node), ingest.Cursor{}, 10, start)
		if got := texts(page.Mappings); page.More || len(got) != len(strings.FieldsFunc(test.want, func(r rune) bool { return r == '|' })) {
			t.Errorf("%+v: got %q, more %t", test, got, page.More)
		} else {
			slices.Sort(got)
			want := slices.Sorted(strings.SplitSeq(test.want, "|"))
			if test.want != "" && !slices.Equal(got, want) {
				t.Errorf("%+v: got %q", test, got)
			}
		}
	}
}

func TestParseFilterNamesEveryFault(t *testing.T) {
	_, err := ingest.ParseFilter(&namewardv1.MappingFilter{Domain: "a..b", Address: "ten", Node: "web"})
	for _, field := range []string{"filter.domain", "filter.address", "filter.node"} {
		if err == nil || !strings.Contains(err.Error(), field+":") {
			t.Errorf("%v does not name %s", err, field)
		}
	}
}

func TestSnapshotReplaces(t *testing.T) {
	table := ingest.New(100)
	id := nodeID(t, "n")
	observe(t, table, "other", start, "kept.example 192.0.2.1")
	observe(t, table, "n", start, "old.example 192.0.2.1", "both.example 192.0.2.1")

	begin := batch(t, "n", start, "both.example 192.0.2.1")
	begin.SnapshotBegin = true
	table.Observe(id, begin, start)
	if stats := table.Stats(); stats.Mappings != 3 {
		t.Errorf("before the snapshot ends %d mappings live, want 3", stats.Mappings)
	}
	end := batch(t, "n", start, "new.example 192.0.2.1")
	end.SnapshotEnd = true
	table.Observe(id, end, start)

	found := table.List(ingest.Filter{}, ingest.Cursor{}, 10, start).Mappings
	want := []string{"both.example 192.0.2.1 n", "kept.example 192.0.2.1 other", "new.example 192.0.2.1 n"}
	if diff := cmp.Diff(want, texts(found)); diff != "" {
		t.Errorf("after the snapshot (-want +got):\n%s", diff)
	}
}

func TestSnapshotThatBrokeOffIsBegunAnew(t *testing.T) {
	table := ingest.New(100)
	id := nodeID(t, "n")
	broken := batch(t, "n", start, "gone.example 192.0.2.1")
	broken.SnapshotBegin = true
	table.Observe(id, broken, start)
	table.Observe(id, ingest.Batch{SnapshotBegin: true, SnapshotEnd: true}, start)
	if stats := table.Stats(); stats.Mappings != 0 {
		t.Errorf("%d mappings live after an empty snapshot", stats.Mappings)
	}
	// An ended mapping leaves the node in place for what follows in the same batch.
	ended := ingest.Batch{Mappings: []*ingest.Mapping{mapping(t, "n", "a.example 192.0.2.1", start.Add(time.Second))}}
	table.Observe(id, ended, start)
	table.Observe(id, ingest.Batch{Mappings: []*ingest.Mapping{
		mapping(t, "n", "a.example 192.0.2.1", start), mapping(t, "n", "b.example 192.0.2.1", start.Add(time.Second)),
	}}, start)
	found := table.List(ingest.Filter{Node: id}, ingest.Cursor{}, 10, start).Mappings
	if diff := cmp.Diff([]string{"b.example 192.0.2.1 n"}, texts(found)); diff != "" {
		t.Errorf("after an end (-want +got):\n%s", diff)
	}
}

func TestOldestGoesFirstOverTheLimit(t *testing.T) {
	table := ingest.New(2)
	for i, name := range []string{"second.example", "first.example", "third.example"} {
		m := mapping(t, "n", name+" 192.0.2.1", start.Add([]time.Duration{20, 10, 30}[i]*time.Second))
		table.Observe(m.Node, ingest.Batch{Mappings: []*ingest.Mapping{m}}, start)
	}
	found := table.List(ingest.Filter{}, ingest.Cursor{}, 10, start).Mappings
	if diff := cmp.Diff([]string{"second.example 192.0.2.1 n", "third.example 192.0.2.1 n"}, texts(found)); diff != "" {
		t.Errorf("what is left (-want +got):\n%s", diff)
	}
	if stats := table.Stats(); stats.Evicted != 1 || stats.Mappings != 2 {
		t.Errorf("stats: %+v", stats)
	}
}

func TestWatchSeesTheExactEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		table := ingest.New(100)
		done := make(chan error)
		go func() { done <- table.Run(ctx) }()

		began := time.Now()
		observe(t, table, "n", began, "long.example alias.example 192.0.2.1", "quiet.test 192.0.2.3")
		watch := table.Watch(filter(t, "*.example", "", ""), began)
		defer watch.Close()
		if diff := cmp.Diff([]string{"long.example 192.0.2.1 n"}, texts(watch.Live)); diff != "" {
			t.Errorf("snapshot (-want +got):\n%s", diff)
		}
		soon := mapping(t, "n", "soon.example 192.0.2.2", began.Add(10*time.Second))
		table.Observe(soon.Node, ingest.Batch{Mappings: []*ingest.Mapping{soon}}, began)
		prolonged := mapping(t, "n", "long.example alias.example 192.0.2.1", began.Add(2*time.Minute))
		table.Observe(soon.Node, ingest.Batch{Mappings: []*ingest.Mapping{prolonged}}, began)

		for _, want := range []struct {
			name  string
			ended bool
			after time.Duration
		}{{"soon.example", false, 0}, {"long.example", false, 0}, {"soon.example", true, 10 * time.Second}, {"long.example", true, 2 * time.Minute}} {
			got, err := watch.Next(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if got.Mapping.Domain.String() != want.name || got.Ended != want.ended || time.Since(began) != want.after {
				t.Errorf("after %v: %s ended=%t, want %+v", time.Since(began), got.Mapping.Domain, got.Ended, want)
			}
		}
		if stats := table.Stats(); stats.Mappings != 0 || stats.Expired != 3 {
			t.Errorf("stats: %+v", stats)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestWatchTellsWhenItNoLongerMatches(t *testing.T) {
	table := ingest.New(10)
	observe(t, table, "n", start, "a.example alias.test 192.0.2.1")
	watch := table.Watch(filter(t, "*.test", "", ""), start)
	defer watch.Close()
	observe(t, table, "n", start, "a.example 192.0.2.1")
	change, err := watch.Next(t.Context())
	if err != nil || !change.Ended {
		t.Errorf("got %+v, %v, want the end", change, err)
	}
}

func TestWatchThatIsTooSlowIsToldSo(t *testing.T) {
	table := ingest.New(100)
	watch := table.Watch(ingest.Filter{}, start)
	defer watch.Close()
	for range 20000 {
		observe(t, table, "n", start, "a.example 192.0.2.1")
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

// What the indexes find is what a walk over everything finds, each once, on pages of any size.
func TestListIsWhatAWalkFinds(t *testing.T) {
	names := rapid.SampledFrom([]string{"a.test", "b.a.test", "c.b.a.test", "ba.test", "test", "a.example", "x.a.example"})
	addresses := rapid.SampledFrom([]string{"192.0.2.1", "192.0.2.2", "192.0.3.1", "2001:db8::1"})
	nodes := rapid.SampledFrom([]string{"n1", "n2"})
	rapid.Check(t, func(rt *rapid.T) {
		table := ingest.New(30)
		model := map[ingest.Position]*ingest.Mapping{}
		for range rapid.IntRange(0, 60).Draw(rt, "observations") {
			text := strings.Join(append(append([]string{names.Draw(rt, "name")}, rapid.SliceOfN(names, 0, 2).Draw(rt, "chain")...), addresses.Draw(rt, "address")), " ")
			seconds := rapid.IntRange(-1, 5).Draw(rt, "seconds")
			m := mapping(t, nodes.Draw(rt, "node"), text, start.Add(time.Duration(seconds)*time.Second))
			table.Observe(m.Node, ingest.Batch{Mappings: []*ingest.Mapping{m}}, start)
			delete(model, m.Position)
			if seconds > 0 {
				model[m.Position] = m
			}
			if table.Stats().Evicted > 0 {
				return
			}
		}
		now := start.Add(time.Duration(rapid.IntRange(0, 4).Draw(rt, "now")) * time.Second)
		f := filter(t,
			rapid.SampledFrom([]string{"", "a.test", "*.a.test", "*.test", "*.example", "*", "b.*", "a*", "*.a*", "b.*.test", "*a.test", "*.b*.test"}).Draw(rt, "domain"),
			rapid.SampledFrom([]string{"", "192.0.2.1", "192.0.2.0/24", "::/0", "0.0.0.0/0"}).Draw(rt, "address filter"),
			rapid.SampledFrom([]string{"", "nodes/n1"}).Draw(rt, "node filter"))
		var want, got []*ingest.Mapping
		for _, m := range model {
			if f.Match(m) && m.Expires.After(now) {
				want = append(want, m)
			}
		}
		slices.SortFunc(want, func(a, b *ingest.Mapping) int { return a.Compare(b.Position) })
		limit := rapid.IntRange(1, 5).Draw(rt, "limit")
		for page := (ingest.Page{More: true}); page.More; {
			page = table.List(f, page.Next, limit, now)
			if len(page.Mappings) > limit || len(page.Cursors) != len(page.Mappings) {
				rt.Fatalf("%d mappings and %d cursors on a page of %d", len(page.Mappings), len(page.Cursors), limit)
			}
			got = append(got, page.Mappings...)
		}
		slices.SortFunc(got, func(a, b *ingest.Mapping) int { return a.Compare(b.Position) })
		if diff := cmp.Diff(texts(want), texts(got)); diff != "" {
			rt.Errorf("filter %+v (-want +got):\n%s", f, diff)
		}
		if diff := cmp.Diff(texts(want), texts(table.Watch(f, now).Live)); diff != "" {
			rt.Errorf("watch of %+v (-want +got):\n%s", f, diff)
		}
	})
}

func TestOfNameAndAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, now := ingest.New(100), time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = table.Run(ctx) }()
		observe(t, table, "n", now, "a.example c.example 192.0.2.1", "b.example 192.0.2.1", "a.example 192.0.2.2")
		observe(t, table, "other", now, "x.example 192.0.2.1")
		former, err := ingest.FromProto(nodeID(t, "n"), &namewardv1.Mapping{
			Domain: "d.example", Address: "192.0.2.3", ExpireTime: timestamppb.New(now.Add(time.Hour)),
			FormerAliases: []*namewardv1.Mapping_FormerAlias{{Domain: "c.example", ExpireTime: timestamppb.New(now.Add(time.Minute))}},
		})
		if err != nil {
			t.Fatal(err)
		}
		table.Observe(nodeID(t, "n"), ingest.Batch{Mappings: []*ingest.Mapping{former}}, now)
		expect := func(when string, got []*ingest.Mapping, want ...string) {
			t.Helper()
			found := texts(got)
			slices.Sort(found)
			if diff := cmp.Diff(want, found); diff != "" {
				t.Errorf("%s (-want +got):\n%s", when, diff)
			}
		}
		id, name := nodeID(t, "n"), mapping(t, "n", "c.example 192.0.2.1", now).Domain
		addresses := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.3")}
		for _, when := range []string{"live", "expired"} {
			expect(when, table.OfName(id, name), "a.example 192.0.2.1 n", "d.example 192.0.2.3 n")
			expect(when, table.OfAddresses(id, addresses), "a.example 192.0.2.1 n", "b.example 192.0.2.1 n", "d.example 192.0.2.3 n")
			time.Sleep(2 * time.Minute)
			synctest.Wait()
		}
		table.Forget(id)
		expect("forgotten", table.OfAddresses(id, addresses))
		cancel()
	})
}

func BenchmarkObserve(b *testing.B) {
	table := ingest.New(1_000_000)
	id := nodeID(b, "n")
	for i := range b.N {
		m := mapping(b, "n", fmt.Sprintf("h%d.d%d.example.com 10.%d.%d.%d", i%1_000_000, i%1000, i>>16&255, i>>8&255, i&255), start.Add(time.Hour))
		table.Observe(id, ingest.Batch{Mappings: []*ingest.Mapping{m}}, start)
	}
}

// What ended is bounded: the last 65,536 of the fleet.
func TestEndedMappingsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most, more = 65_536, 100
		table, now := ingest.New(400_000), time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = table.Run(ctx) }()
		id := nodeID(t, "n")
		var b ingest.Batch
		for i := range most + more {
			b.Mappings = append(b.Mappings, mapping(t, "n", fmt.Sprintf("n%d.example 192.0.2.1", i), now.Add(time.Second+time.Duration(i))))
		}
		table.Observe(id, b, now)
		time.Sleep(time.Minute)
		synctest.Wait()
		got := table.OfAddresses(id, []netip.Addr{netip.MustParseAddr("192.0.2.1")})
		gone := slices.ContainsFunc(got, func(m *ingest.Mapping) bool { return m.Domain.String() == fmt.Sprintf("n%d.example", more-1) })
		if len(got) != most || gone {
			t.Errorf("%d mappings are remembered, want the last %d; the one before them is there: %v", len(got), most, gone)
		}
		cancel()
	})
}

// Where few of many match, pages are short, and the last has what there is.
func TestListIsBoundedByWhatItLooksAt(t *testing.T) {
	table, id := ingest.New(400_000), nodeID(t, "n")
	var b ingest.Batch
	for i := range 70_000 {
		b.Mappings = append(b.Mappings, mapping(t, "n", fmt.Sprintf("n%05d.example 192.0.2.1", i), start.Add(time.Minute)))
	}
	table.Observe(id, b, start)
	f := filter(t, "n*9999.example", "", "")
	page := table.List(f, ingest.Cursor{}, 10, start)
	if len(page.Mappings) != 6 || !page.More {
		t.Fatalf("the first page has %d mappings, more %t; want 6 and more", len(page.Mappings), page.More)
	}
	page = table.List(f, page.Next, 10, start)
	if got := texts(page.Mappings); len(got) != 1 || got[0] != "n69999.example 192.0.2.1 n" || page.More {
		t.Errorf("the second page has %v, more %t", got, page.More)
	}
}
