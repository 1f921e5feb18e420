package flow_test

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/flow"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/api/ruleset"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func nodeID(t rapid.TB, s string) node.ID {
	t.Helper()
	id, err := node.ParseID(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func name(t rapid.TB, s string) domain.Name {
	t.Helper()
	n, err := domain.ParseName(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// drawEvent makes any event that an agent may tell.
func drawEvent(t *rapid.T) *flow.Event {
	addresses := rapid.SampledFrom([]netip.Addr{
		{}, netip.MustParseAddr("10.1.0.7"), netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"),
	})
	names := rapid.SampledFrom([]string{"a.example", "b.a.example", `odd\.label.example`, "*.example"})
	e := &flow.Event{
		Key: flow.Key{
			Mode:        rapid.SampledFrom([]ruleset.Mode{ruleset.Enforce, ruleset.Audit}).Draw(t, "mode"),
			Reason:      flow.Reason(rapid.IntRange(1, 5).Draw(t, "reason")),
			Destination: flow.Destination{addresses.Draw(t, "destination"), rapid.Uint16().Draw(t, "port"), ruleset.Protocol(rapid.Byte().Draw(t, "protocol"))},
		},
		Count: rapid.Uint64Min(1).Draw(t, "count"), FirstSeen: start,
		LastSeen: start.Add(time.Duration(rapid.Int64Range(0, 1e15).Draw(t, "lasted"))),
	}
	if rapid.Bool().Draw(t, "host") {
		e.Workload = flow.Workload{Host: true, HasUID: rapid.Bool().Draw(t, "has uid")}
		if e.Workload.HasUID {
			e.Workload.UID = rapid.Uint32().Draw(t, "uid")
		}
	} else {
		e.Workload = flow.Workload{Address: addresses.Draw(t, "source"), Interface: rapid.SampledFrom([]string{"", "veth0"}).Draw(t, "interface")}
	}
	if e.Reason == flow.Rule {
		e.Policy, e.Rule = rapid.SampledFrom([]string{"policies/a", "policies/b"}).Draw(t, "policy"), rapid.Int32Range(0, 9).Draw(t, "rule")
	}
	if rapid.Bool().Draw(t, "is a question") {
		e.Question = name(t, "asked.example")
	}
	for _, text := range rapid.SliceOfN(names, 0, flow.MaxDomains).Draw(t, "domains") {
		n, err := domain.ParseCanonical(text)
		if err != nil {
			n = name(t, "plain.example")
		}
		e.Domains = append(e.Domains, n)
	}
	return e
}

func TestMessagesKeepEverything(t *testing.T) {
	id := nodeID(t, "lab")
	rapid.Check(t, func(t *rapid.T) {
		e := drawEvent(t)
		wire, err := proto.Marshal(e.ToProto(id))
		if err != nil {
			t.Fatal(err)
		}
		var message namewardv1.FlowEvent
		if err := proto.Unmarshal(wire, &message); err != nil {
			t.Fatal(err)
		}
		got, err := flow.FromProto(&message)
		if err != nil {
			t.Fatalf("read %v: %v", &message, err)
		}
		compare := gocmp.Comparer(func(a, b domain.Name) bool { return a == b })
		addresses := gocmp.Comparer(func(a, b netip.Addr) bool { return a == b })
		if diff := gocmp.Diff(e, got, compare, addresses); diff != "" {
			t.Errorf("after the wire (-want +got):\n%s", diff)
		}
		if message.GetNode() != "nodes/lab" || message.GetVerdict() != namewardv1.Verdict_DENY {
			t.Errorf("node %q, verdict %v", message.GetNode(), message.GetVerdict())
		}
	})
}

func TestKeysHaveOneOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		keys := []flow.Key{drawEvent(t).Key, drawEvent(t).Key, drawEvent(t).Key}
		for _, a := range keys {
			for _, b := range keys {
				if (a.Compare(&b) == 0) != (a == b) || cmp.Compare(a.Compare(&b), 0) != -cmp.Compare(b.Compare(&a), 0) {
					t.Fatalf("%+v against %+v: %d and %d", a, b, a.Compare(&b), b.Compare(&a))
				}
			}
		}
		slices.SortFunc(keys, func(a, b flow.Key) int { return a.Compare(&b) })
		if keys[0].Compare(&keys[2]) > 0 {
			t.Errorf("not sorted: %+v", keys)
		}
	})
}

func TestPositionsSurviveAPageToken(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := flow.Position{Node: nodeID(t, "lab"), Key: drawEvent(t).Key}
		wire, err := want.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := flow.ParsePosition(wire); err != nil || got != want {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
		if (flow.Position{}).Compare(want) >= 0 {
			t.Errorf("the zero position is not before %+v", want)
		}
	})
	for _, wire := range []string{"", "nonsense", "\x1a\x05nodes"} {
		if got, err := flow.ParsePosition([]byte(wire)); err == nil {
			t.Errorf("%q: got %+v, want a fault", wire, got)
		}
	}
}

func TestFromProtoRefuses(t *testing.T) {
	good := func() *namewardv1.FlowEvent {
		rule := int32(0)
		return &namewardv1.FlowEvent{
			Mode: namewardv1.Policy_ENFORCE, Reason: namewardv1.FlowEvent_RULE, Policy: "policies/a", Rule: &rule, Count: 1,
			FirstTime: timestamppb.New(start), LastTime: timestamppb.New(start),
		}
	}
	if _, err := flow.FromProto(good()); err != nil {
		t.Fatal(err)
	}
	negative := int32(-1)
	for fault, edit := range map[string]func(*namewardv1.FlowEvent){
		"mode":                func(m *namewardv1.FlowEvent) { m.Mode = namewardv1.Policy_DISABLED },
		"reason":              func(m *namewardv1.FlowEvent) { m.Reason = 77 },
		"no reason":           func(m *namewardv1.FlowEvent) { m.Reason = 0 },
		"rule without policy": func(m *namewardv1.FlowEvent) { m.Policy = "" },
		"policy without rule": func(m *namewardv1.FlowEvent) { m.Reason = namewardv1.FlowEvent_NO_RULE },
		"negative rule":       func(m *namewardv1.FlowEvent) { m.Rule = &negative },
		"no count":            func(m *namewardv1.FlowEvent) { m.Count = 0 },
		"no time":             func(m *namewardv1.FlowEvent) { m.FirstTime = nil },
		"time out of range":   func(m *namewardv1.FlowEvent) { m.LastTime.Seconds = 1 << 60 },
		"source":              func(m *namewardv1.FlowEvent) { m.Workload = &namewardv1.FlowEvent_Workload{Address: "ten"} },
		"destination":         func(m *namewardv1.FlowEvent) { m.Destination = &namewardv1.FlowEvent_Destination{Address: "ten"} },
		"port":                func(m *namewardv1.FlowEvent) { m.Destination = &namewardv1.FlowEvent_Destination{Port: 65536} },
		"protocol number":     func(m *namewardv1.FlowEvent) { m.Destination = &namewardv1.FlowEvent_Destination{ProtocolNumber: 256} },
		"protocol":            func(m *namewardv1.FlowEvent) { m.Destination = &namewardv1.FlowEvent_Destination{Protocol: 99} },
		"domain":              func(m *namewardv1.FlowEvent) { m.Domains = []string{"a..b"} },
		"too many domains":    func(m *namewardv1.FlowEvent) { m.Domains = make([]string, 9) },
		"question":            func(m *namewardv1.FlowEvent) { m.Question = "a..b" },
	} {
		message := good()
		edit(message)
		if e, err := flow.FromProto(message); err == nil {
			t.Errorf("%s: got %+v, want a fault", fault, e)
		}
	}
}

func TestFilter(t *testing.T) {
	lab := nodeID(t, "lab")
	events := map[string]*flow.Event{
		"web": {Key: flow.Key{
			Reason: flow.Rule, Policy: "policies/web",
			Workload: flow.Workload{Address: netip.MustParseAddr("10.1.0.7")}, Destination: flow.Destination{Address: netip.MustParseAddr("192.0.2.1")},
		}, Domains: []domain.Name{name(t, "cdn.test"), name(t, "www.example.com")}},
		"uid": {Key: flow.Key{
			Mode: ruleset.Audit, Reason: flow.NoRule,
			Workload: flow.Workload{Host: true, HasUID: true, UID: 1000}, Destination: flow.Destination{Address: netip.MustParseAddr("2001:db8::1")},
		}},
		"kernel": {Key: flow.Key{Reason: flow.NoRule, Workload: flow.Workload{Host: true}, Destination: flow.Destination{Address: netip.MustParseAddr("192.0.2.1")}}},
		"asked":  {Key: flow.Key{Reason: flow.NoRule, Question: name(t, "x.example.com"), Workload: flow.Workload{Address: netip.MustParseAddr("fd01::7")}}},
	}
	for _, test := range []struct {
		filter *namewardv1.FlowEventFilter
		want   string
	}{
		{nil, "asked kernel uid web"},
		{&namewardv1.FlowEventFilter{Node: "nodes/lab"}, "asked kernel uid web"},
		{&namewardv1.FlowEventFilter{Node: "nodes/other"}, ""},
		{&namewardv1.FlowEventFilter{Domain: "*.example.com"}, "asked web"},
		{&namewardv1.FlowEventFilter{Domain: "cdn.test"}, "web"},
		{&namewardv1.FlowEventFilter{Address: "192.0.2.0/24"}, "kernel web"},
		{&namewardv1.FlowEventFilter{Address: "2001:db8::1"}, "uid"},
		{&namewardv1.FlowEventFilter{Workload: "10.1.0.0/24"}, "web"},
		{&namewardv1.FlowEventFilter{Workload: "fd01::7"}, "asked"},
		{&namewardv1.FlowEventFilter{Workload: "uid:1000"}, "uid"},
		{&namewardv1.FlowEventFilter{Workload: "uid:0"}, ""},
		{&namewardv1.FlowEventFilter{Workload: "host"}, "kernel uid"},
		{&namewardv1.FlowEventFilter{Policy: "policies/web"}, "web"},
		{&namewardv1.FlowEventFilter{Mode: namewardv1.Policy_AUDIT}, "uid"},
		{&namewardv1.FlowEventFilter{Mode: namewardv1.Policy_ENFORCE, Workload: "host"}, "kernel"},
	} {
		filter, err := flow.ParseFilter("filter", test.filter)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for what, e := range events {
			if filter.Match(lab, e) {
				got = append(got, what)
			}
		}
		slices.Sort(got)
		if text := strings.Join(got, " "); text != test.want {
			t.Errorf("%v: got %q, want %q", test.filter, text, test.want)
		}
	}
}

func TestParseFilterNamesEveryFault(t *testing.T) {
	_, err := flow.ParseFilter("filter", &namewardv1.FlowEventFilter{
		Domain: "a..b", Address: "ten", Node: "lab", Workload: "uid:-1", Policy: "web", Mode: namewardv1.Policy_DISABLED,
	})
	for _, field := range []string{"domain", "address", "node", "workload", "policy", "mode"} {
		if err == nil || !strings.Contains(err.Error(), "filter."+field+":") {
			t.Errorf("%v does not name filter.%s", err, field)
		}
	}
	if _, err := flow.ParseFilter("filter", &namewardv1.FlowEventFilter{Workload: "somebody"}); err == nil {
		t.Error("workload somebody: got no fault")
	}
}
