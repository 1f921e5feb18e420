package observe_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/flow"
	"github.com/nameward/nameward/dataplane/observe"
)

// flowTo is the key of connections to a port of 192.0.2.1.
func flowTo(port int) flow.Key {
	return flow.Key{
		Reason:      flow.NoRule,
		Workload:    flow.Workload{Address: netip.MustParseAddr("10.1.0.7")},
		Destination: flow.Destination{Address: netip.MustParseAddr("192.0.2.1"), Port: uint16(port), Protocol: 6},
	}
}

func all(*flow.Event) bool { return true }

func TestFlowsCountWhatIsTheSame(t *testing.T) {
	flows := observe.NewFlows(0)
	flows.Record(flowTo(443), start)
	flows.Record(flowTo(80), start.Add(time.Second))
	flows.Record(flowTo(443), start.Add(2*time.Second))
	list := flows.List(start.Add(time.Minute), all)
	if len(list) != 2 || list[0].Destination.Port != 80 || list[0].Count != 1 {
		t.Fatalf("got %+v, want one to port 80 first", list)
	}
	if e := list[1]; e.Count != 2 || e.FirstSeen != start || e.LastSeen != start.Add(2*time.Second) {
		t.Errorf("got %+v, want 2 from %v on", e, start)
	}
}

func TestFlowsSayTheLastNames(t *testing.T) {
	flows := observe.NewFlows(0)
	names := func() []string {
		flows.Record(flowTo(443), start)
		var texts []string
		for _, n := range flows.List(start, all)[0].Domains {
			texts = append(texts, n.String())
		}
		return texts
	}
	if got := names(); len(got) != 0 {
		t.Errorf("of an address without a name: got %v", got)
	}
	mappings := []observe.Mapping{
		{Domain: name(t, "new.example"), Address: netip.MustParseAddr("192.0.2.1"), LastSeen: start.Add(1)},
		{Domain: name(t, "old.example"), Address: netip.MustParseAddr("192.0.2.1"), LastSeen: start},
	}
	flows.Restore(mappings)
	if got, want := names(), []string{"new.example", "old.example"}; !slices.Equal(got, want) {
		t.Errorf("restored: got %v, want %v", got, want)
	}
	flows.Saw(answer(t, 0, time.Second, []string{"old.example", "cdn.test"}, "192.0.2.1", "192.0.2.2"))
	// Long after it ended.
	if got, want := names(), []string{"old.example", "new.example"}; !slices.Equal(got, want) {
		t.Errorf("seen again: got %v, want %v", got, want)
	}
	for i := range 20 {
		flows.Saw(answer(t, 0, time.Second, []string{fmt.Sprintf("n%d.example", i)}, "192.0.2.1"))
	}
	if got := names(); len(got) != flow.MaxDomains || got[0] != "n19.example" || got[7] != "n12.example" {
		t.Errorf("many: got %v, want the last %d, the newest first", got, flow.MaxDomains)
	}
}

func TestFlowsAreForgottenByAgeAndCount(t *testing.T) {
	flows := observe.NewFlows(3)
	for port := range 4 {
		flows.Record(flowTo(port), start.Add(time.Duration(port)))
		flows.Record(flowTo(1), start.Add(time.Duration(port))) // never the one that was not seen for longest
	}
	if got := ports(flows.List(start, all)); !slices.Equal(got, []uint16{1, 2, 3}) || flows.Evicted() != 1 {
		t.Errorf("over the capacity: got %v, %d evicted, want 1, 2 and 3, 1 evicted", got, flows.Evicted())
	}
	flows.Record(flowTo(9), start.Add(observe.FlowAge+3))
	if got := ports(flows.List(start.Add(observe.FlowAge+3), all)); !slices.Equal(got, []uint16{1, 3, 9}) {
		t.Errorf("a day later: got %v, want 1, 3 and 9", got)
	}
	if got := ports(flows.List(start.Add(2*observe.FlowAge+4), all)); len(got) != 0 || flows.Evicted() != 1 {
		t.Errorf("two days later: got %v, %d evicted, want none, 1 evicted", got, flows.Evicted())
	}
}

func ports(events []flow.Event) []uint16 {
	var ports []uint16
	for _, e := range events {
		ports = append(ports, e.Destination.Port)
	}
	return ports
}

// Whatever is recorded and however a reader pages, what it holds in the end is what there is, and no
// change is told twice.
func TestFlowChangesAreState(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		flows := observe.NewFlows(1000)
		model := map[flow.Key]uint64{}
		replica := map[flow.Key]uint64{}
		cursor := observe.Cursor(0)
		read := func(limit int) int {
			changed, next, _ := flows.Changes(cursor, limit)
			for _, e := range changed {
				if replica[e.Key] == e.Count {
					t.Errorf("port %d with count %d told twice", e.Destination.Port, e.Count)
				}
				replica[e.Key] = e.Count
			}
			cursor = next
			return len(changed)
		}
		for range rapid.IntRange(0, 100).Draw(t, "steps") {
			if rapid.IntRange(0, 3).Draw(t, "step") == 0 {
				read(rapid.IntRange(1, 4).Draw(t, "limit"))
				continue
			}
			key := flowTo(rapid.IntRange(0, 9).Draw(t, "port"))
			model[key]++
			flows.Record(key, start)
		}
		_, _, more := flows.Changes(cursor, 1)
		for read(3) == 3 {
		}
		if fmt.Sprint(model) != fmt.Sprint(replica) {
			t.Errorf("replica %v, want %v", replica, model)
		}
		flows.Record(flowTo(1), start)
		select {
		case <-more:
		default:
			t.Error("the channel is not closed after a change")
		}
	})
}

func TestNamesOfAddressesAreBounded(t *testing.T) {
	flows := observe.NewFlows(0)
	first := netip.MustParseAddr("10.0.0.0")
	n := name(t, "a.example")
	for i, a := 0, first; i < 65_536+1; i, a = i+1, a.Next() {
		flows.Saw(observe.Answer{Names: []domain.Name{n}, Addresses: []observe.Address{{Address: a, Names: 1}}})
	}
	named := func(a netip.Addr) bool {
		key := flow.Key{Destination: flow.Destination{Address: a}}
		flows.Record(key, start)
		return len(flows.List(start, func(e *flow.Event) bool { return e.Key == key })[0].Domains) > 0
	}
	if named(first) || !named(first.Next()) {
		t.Errorf("named: the oldest %v, the next %v, want only the next", named(first), named(first.Next()))
	}
}
