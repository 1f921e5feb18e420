package observe_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/nameward/nameward/dataplane/observe"
)

// namesOf returns the names that a table knows an address to have had, sorted.
func namesOf(table *observe.Table, text string) (names []string, whole bool) {
	address := netip.MustParseAddr(text)
	of := table.NamesOf(map[netip.Addr]bool{address: true})[address]
	for _, n := range of.Names {
		names = append(names, n.String())
	}
	slices.Sort(names)
	return names, of.Whole
}

func TestNamesOutliveMappings(t *testing.T) {
	table := observe.NewTable(0, 0)
	expect := func(when string, whole bool, want ...string) {
		t.Helper()
		if got, gotWhole := namesOf(table, "192.0.2.1"); !slices.Equal(got, want) || gotWhole != whole {
			t.Errorf("%s: got %v, whole %t, want %v, %t", when, got, gotWhole, want, whole)
		}
	}
	expect("nothing seen", true)
	table.Record(answer(t, 0, time.Minute, []string{"www.example", "cdn.test"}, "192.0.2.1"))
	expect("alive", true, "cdn.test", "www.example")
	table.Record(answer(t, time.Second, time.Minute, []string{"www.example", "other.test"}, "192.0.2.1"))
	table.Expire(start.Add(time.Hour))
	if table.Len() != 0 {
		t.Fatalf("%d mappings are left", table.Len())
	}
	expect("expired", true, "cdn.test", "other.test", "www.example")
	table.Record(answer(t, 2*time.Hour, time.Minute, []string{"new.example"}, "192.0.2.1"))
	expect("under a new name", true, "cdn.test", "new.example", "other.test", "www.example")
	table.Missed()
	expect("after answers were missed", false, "cdn.test", "new.example", "other.test", "www.example")
}

func TestFormerNamesAreBounded(t *testing.T) {
	table := observe.NewTable(8, 0)
	for i := range 12 {
		at := time.Duration(i) * time.Minute
		table.Record(answer(t, at, time.Second, []string{fmt.Sprintf("n%d.example", i)}, fmt.Sprintf("192.0.2.%d", i)))
		table.Expire(start.Add(at + 2*time.Second))
	}
	if got, whole := namesOf(table, "192.0.2.7"); len(got) != 1 || !whole {
		t.Errorf("one that is there: got %v, whole %t, want its name, true", got, whole)
	}
	if got, whole := namesOf(table, "192.0.2.0"); len(got) != 0 || whole {
		t.Errorf("the first: got %v, whole %t, want none, false", got, whole)
	}
	one := observe.NewTable(0, 0)
	for i := range 300 {
		one.Record(answer(t, 0, time.Second, []string{fmt.Sprintf("n%d.example", i)}, "192.0.2.1"))
	}
	one.Expire(start.Add(time.Hour))
	if got, whole := namesOf(one, "192.0.2.1"); len(got) != 256 || whole {
		t.Errorf("an address with many names: got %d, whole %t, want 256, false", len(got), whole)
	}
}
