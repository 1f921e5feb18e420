package observe_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/dataplane/observe"
)

// found returns `name address` of what a table finds of an address, sorted, with how often each is there.
func found(table *observe.Table, text string) []string {
	address := netip.MustParseAddr(text)
	var texts []string
	for _, m := range table.Find(func(m *observe.Mapping) bool { return m.Address == address }) {
		texts = append(texts, fmt.Sprintf("%s until %v", m.Domain, m.ExpiresAt.Sub(start)))
	}
	slices.Sort(texts)
	return texts
}

func TestEndedMappingsAreFound(t *testing.T) {
	table := observe.NewTable(0, 0)
	table.Record(answer(t, 0, time.Minute, []string{"a.example"}, "192.0.2.1"))
	table.Record(answer(t, 0, time.Hour, []string{"b.example"}, "192.0.2.1"))
	table.Expire(start.Add(2 * time.Minute))
	if got, want := found(table, "192.0.2.1"), []string{"a.example until 1m0s", "b.example until 1h0m0s"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	table.Record(answer(t, 3*time.Minute, time.Minute, []string{"a.example"}, "192.0.2.1"))
	if got, want := found(table, "192.0.2.1"), []string{"a.example until 1m0s", "a.example until 4m0s", "b.example until 1h0m0s"}; !slices.Equal(got, want) {
		t.Errorf("alive again: got %v, want %v", got, want)
	}
}

func TestEndedMappingsAreBounded(t *testing.T) {
	const most = 8192
	table := observe.NewTable(0, 0)
	for i := range most + 10 {
		at := time.Duration(i) * time.Second
		table.Record(answer(t, at, time.Second, []string{fmt.Sprintf("n%d.example", i)}, "192.0.2.1"))
		table.Expire(start.Add(at + time.Second))
	}
	names := found(table, "192.0.2.1")
	if len(names) != most || slices.ContainsFunc(names, func(s string) bool { return s == "n9.example until 10s" }) ||
		!slices.Contains(names, "n10.example until 11s") || !slices.Contains(names, fmt.Sprintf("n%d.example until %v", most+9, (most+10)*time.Second)) {
		t.Errorf("%d are found, want the last %d", len(names), most)
	}
}

func TestFormerAliasesAreTold(t *testing.T) {
	table := observe.NewTable(0, 0)
	table.Record(answer(t, 0, time.Minute, []string{"www.example", "old.test"}, "192.0.2.1"))
	before, _, _ := table.Changes(0, 0)
	table.Record(answer(t, time.Second, time.Hour, []string{"www.example", "new.test"}, "192.0.2.1"))
	changed, _, _ := table.Changes(0, 0)
	message := changed[0].ToProto(node.ID{}, start)
	if len(message.GetFormerAliases()) != 1 || message.GetFormerAliases()[0].GetDomain() != "old.test" ||
		!message.GetFormerAliases()[0].GetExpireTime().AsTime().Equal(start.Add(time.Minute)) {
		t.Errorf("got %v, want old.test until %v", message, start.Add(time.Minute))
	}
	if len(before[0].Former) != 0 {
		t.Errorf("what was read before has changed: %v", before[0])
	}
	table.Record(answer(t, 2*time.Second, time.Hour, []string{"www.example", "old.test"}, "192.0.2.1"))
	changed, _, _ = table.Changes(0, 0)
	if former := changed[0].Former; len(former) != 1 || former[0].Name.String() != "new.test" {
		t.Errorf("back on the chain: %v", former)
	}
}
