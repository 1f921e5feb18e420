package datapath

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/flow"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
)

// told drains the ring buffer and returns what was told since the flow events were last emptied.
func (f *fixture) told(t testing.TB) []flow.Event {
	t.Helper()
	if err := f.locked(f.drain); err != nil {
		t.Fatal(err)
	}
	clock, err := readClock()
	if err != nil {
		t.Fatal(err)
	}
	return f.flows.List(clock.now, func(*flow.Event) bool { return true })
}

func text(e flow.Event) string {
	who := e.Workload.Address.String()
	if e.Workload.Host {
		who = fmt.Sprintf("uid %d", e.Workload.UID)
	}
	names := make([]string, len(e.Domains))
	for i, n := range e.Domains {
		names[i] = n.String()
	}
	return fmt.Sprintf("%d× %s → %s:%d [%s] mode %d reason %d %s %d", e.Count, who, e.Destination.Address, e.Destination.Port,
		strings.Join(names, " "), e.Mode, e.Reason, e.Policy, e.Rule)
}

func (f *fixture) wantFlows(t testing.TB, want ...string) {
	t.Helper()
	var got []string
	for _, e := range f.told(t) {
		got = append(got, text(e))
	}
	if a, b := strings.Join(got, "\n"), strings.Join(want, "\n"); a != b {
		t.Errorf("flow events:\n%s\nwant:\n%s", a, b)
	}
}

func TestFlowEventsNameRuleAndDestination(t *testing.T) {
	f := newFixture(t)
	f.apply(t, policies(t,
		`{"name": "policies/empty", "mode": "ENFORCE", "established": "CUT", "priority": 1, "workloads": [{"host": true}], "rules": []}`,
		`{"name": "policies/host", "mode": "ENFORCE", "established": "CUT", "priority": 2, "workloads": [{"host": true}],
		  "rules": [{"action": "ALLOW", "cidrs": ["203.0.113.0/24"]}, {"action": "DENY", "domains": ["*.tracker.example"]}]}`,
		`{"name": "policies/trial", "mode": "AUDIT", "established": "CUT", "priority": 3, "workloads": [{"host": true}],
		  "rules": [{"action": "DENY", "cidrs": ["203.0.113.9/32"]}, {"action": "ALLOW"}]}`))
	f.resolve(t, "a.tracker.example", 60, "a.tracker.example. IN CNAME cdn.test.", "cdn.test. IN A 198.51.100.1")
	for range 3 {
		f.opens(t, "198.51.100.1:443")
	}
	f.opens(t, "198.51.100.2:80")
	if !f.opens(t, "203.0.113.9:80") || !f.opens(t, "203.0.113.1:80") {
		t.Error("an allowed connection does not pass")
	}
	want := []string{
		"3× uid 0 → 198.51.100.1:443 [a.tracker.example] mode 0 reason 1 policies/host 1",
		"1× uid 0 → 198.51.100.2:80 [] mode 0 reason 2  0",
		"1× uid 0 → 203.0.113.9:80 [] mode 1 reason 1 policies/trial 0",
	}
	f.wantFlows(t, want...)
	// What was told before a change is of the rules before it: here it was rule 1 before and after.
	f.opens(t, "198.51.100.1:443")
	f.apply(t, hostRules(t, allow("www.example.com"), `{"action": "DENY", "domains": ["*.tracker.example"]}`))
	f.opens(t, "198.51.100.1:443")
	want[0] = strings.Replace(want[0], "3×", "5×", 1)
	f.wantFlows(t, want...)
}

// What an agent finds in the ring buffer when it starts is of a rule set that it knows only if that is
// the one it begins with.
func TestFlowEventsOfTheProcessBefore(t *testing.T) {
	f := newFixture(t)
	first := hostRules(t, `{"action": "DENY", "cidrs": ["192.0.2.0/24"]}`)
	f.apply(t, first)
	f.opens(t, "192.0.2.1:443")
	f.restart(t)
	f.apply(t, first)
	f.wantFlows(t, "1× uid 0 → 192.0.2.1:443 [] mode 0 reason 1 policies/host 0")
	f.opens(t, "192.0.2.1:443")
	f.restart(t)
	f.apply(t, hostRules(t))
	f.wantFlows(t, "1× uid 0 → 192.0.2.1:443 [] mode 0 reason 3  0")
}

func TestFlowEventsOfForwardedConnections(t *testing.T) {
	f := newFixture(t)
	f.apply(t, policies(t, `{"name": "policies/ten", "mode": "ENFORCE", "established": "CUT", "workloads": [{"cidrs": ["10.0.0.0/8", "fd00::/8"]}]}`))
	for from, to := range map[string]string{"10.0.0.7:5000": "192.0.2.1:443", "[fd00::7]:5000": "[2001:db8::1]:53"} {
		packet := bpftest.Connection(bpftest.UDP, netip.MustParseAddrPort(from), netip.MustParseAddrPort(to))
		if f.run(t, bpf.DatapathProgEgressForwarded, packet) == 0 {
			t.Errorf("%s to %s passes", from, to)
		}
	}
	f.wantFlows(t, "1× 10.0.0.7 → 192.0.2.1:443 [] mode 0 reason 2  0", "1× fd00::7 → 2001:db8::1:53 [] mode 0 reason 2  0")
	for _, e := range f.told(t) {
		if e.Workload.Interface != "lo" || e.Destination.Protocol != ruleset.UDP {
			t.Errorf("interface %q, protocol %d, want lo and UDP", e.Workload.Interface, e.Destination.Protocol)
		}
	}
}

func TestDecodeFlow(t *testing.T) {
	c := clock{}
	question, err := domain.ParseName("asked.example")
	if err != nil {
		t.Fatal(err)
	}
	encode := func(edit func(*bpf.DatapathFlowEvent), tail ...byte) []byte {
		e := bpf.DatapathFlowEvent{Type: bpf.DatapathEventTypeEVENT_FLOW, NameBytes: uint16(len(tail))} //nolint:gosec // short
		edit(&e)
		raw, err := binary.Append(nil, binary.LittleEndian, &e)
		if err != nil {
			t.Fatal(err)
		}
		return append(raw, tail...)
	}
	same := func(*bpf.DatapathFlowEvent) {}
	wire := question.Wire()
	got, err := decodeFlow(append(encode(same, wire...), 0, 0, 0), c)
	if err != nil || got.question != question {
		t.Errorf("a question: got %v, %v, want %v", got.question, err, question)
	}
	for what, raw := range map[string][]byte{
		"empty":             nil,
		"header cut short":  encode(same)[:80],
		"name cut short":    encode(same, wire...)[:len(encode(same))+3],
		"name without root": encode(same, wire[:len(wire)-1]...),
	} {
		if got, err := decodeFlow(raw, c); err == nil {
			t.Errorf("%s: got %+v, want a fault", what, got)
		}
	}
	if _, err := decodeFlow(encode(same), c); err != nil {
		t.Errorf("no question: %v", err)
	}
}

func TestFlowsLeaveTheJournalAlone(t *testing.T) {
	f := newFixture(t)
	f.apply(t, hostRules(t, allow("www.example.com")))
	for i := range 2 * eventBatch {
		f.opens(t, fmt.Sprintf("192.0.2.1:%d", i+1))
		if i == eventBatch {
			f.resolve(t, "www.example.com", 60, "www.example.com. IN A 198.51.100.1")
		}
	}
	if got := len(f.told(t)); got != 2*eventBatch {
		t.Errorf("%d flow events, want %d", got, 2*eventBatch)
	}
	f.restart(t)
	if f.table.Len() != 1 || !f.opens(t, "198.51.100.1:443") {
		t.Errorf("%d mappings after a restart, want 1, in force", f.table.Len())
	}
}
