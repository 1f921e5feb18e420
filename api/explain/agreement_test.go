package explain_test

import (
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/controlplane/adminserver"
	"github.com/nameward/nameward/controlplane/compile"
	"github.com/nameward/nameward/controlplane/ingest"
	"github.com/nameward/nameward/controlplane/policy"
	"github.com/nameward/nameward/controlplane/storage/bolt"
	"github.com/nameward/nameward/controlplane/store"
	"github.com/nameward/nameward/dataplane/localserver"
	"github.com/nameward/nameward/dataplane/observe"
)

// agent is one that has these rules in force, on a node with two addresses.
type agent struct{ rules *ruleset.RuleSet }

func (agent) Status() *agentv1.GetStatusResponse    { return nil }
func (a agent) Rules() *ruleset.RuleSet             { return a.rules }
func (agent) TakeIn()                               {}
func (agent) Degraded() ([]string, <-chan struct{}) { return nil, nil }

func (agent) Resolvers() []netip.AddrPort {
	return []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53"), netip.MustParseAddrPort("[2001:db8::53]:53")}
}

func (agent) Servers() []netip.AddrPort {
	return []netip.AddrPort{netip.MustParseAddrPort("192.0.2.54:7443")}
}

func (agent) Own(address netip.Addr) (bool, error) {
	return address == netip.MustParseAddr("10.1.0.1") || address == netip.MustParseAddr("192.0.2.4"), nil
}

// learned is what the node saw: answers, some of which have expired.
func learned(t *testing.T, at time.Time) []observe.Answer {
	answer := func(ttl time.Duration, addresses string, names ...string) observe.Answer {
		a := observe.Answer{Question: 1, Client: netip.MustParseAddr("10.1.0.7"), LearnedAt: at.Add(-time.Hour), ExpiresAt: at.Add(ttl)}
		for _, text := range names {
			a.Names = append(a.Names, name(t, text))
		}
		a.Addresses = []observe.Address{{Address: netip.MustParseAddr(addresses), Names: len(names)}}
		return a
	}
	return []observe.Answer{
		answer(time.Hour, "192.0.2.1", "api.example"),
		answer(2*time.Hour, "192.0.2.2", "www.shop.example", "edge.docker.example"),
		answer(time.Hour, "192.0.2.2", "www.shop.example", "other.cdn.example"), // the alias before it lives on
		answer(time.Hour, "192.0.2.3", "one.shared.example"),
		answer(time.Hour, "192.0.2.4", "one.shared.example"),
		answer(time.Hour, "192.0.2.3", "two.shared.example"),
		answer(time.Hour, "2001:db8::3", "one.shared.example"),
		answer(-time.Minute, "192.0.2.5", "gone.docker.example", "api.example"),
	}
}

// TestServerAndAgentAgree: of the same node, rules and mappings the two say the same.
func TestServerAndAgentAgree(t *testing.T) {
	messages := []*namewardv1.Policy{
		{Name: "policies/a", NodeSelector: &namewardv1.NodeSelector{MatchLabels: map[string]string{"role": "web"}}, Rules: []*namewardv1.Rule{
			{Action: namewardv1.Rule_DENY, Domains: []string{"*.tracker.example"}, QueryAction: namewardv1.Rule_REFUSE},
			{Action: namewardv1.Rule_ALLOW, Domains: []string{"api.example"}, Ports: []*namewardv1.Port{{Protocol: namewardv1.Protocol_TCP, Port: 443}}},
		}},
		{Name: "policies/b", Priority: -1, Workloads: []*namewardv1.Workload{{Cidrs: []string{"10.1.0.0/24"}}}, Rules: []*namewardv1.Rule{
			{Action: namewardv1.Rule_DENY, Domains: []string{"two.shared.example"}},
			{Action: namewardv1.Rule_ALLOW, Domains: []string{"*.docker.example", "one.shared.example"}},
			{Action: namewardv1.Rule_ALLOW, Cidrs: []string{"198.51.100.0/24"}},
		}},
		{Name: "policies/c", Mode: namewardv1.Policy_AUDIT, Workloads: []*namewardv1.Workload{{Interface: "cni+"}, {Host: true}}},
		{Name: "policies/off", Mode: namewardv1.Policy_DISABLED},
		{Name: "policies/elsewhere", NodeSelector: &namewardv1.NodeSelector{MatchLabels: map[string]string{"role": "db"}}},
	}
	at := time.Now()
	table := observe.NewTable(0, 0)
	for _, answer := range learned(t, at) {
		table.Record(answer)
	}
	every := func(*observe.Mapping) bool { return true }
	nodes := server(t, messages, table.Find(every), at)
	table.Expire(at)
	rules := nodes.rules
	local := localserver.New("", nodes.id, agent{rules}, agent{rules}, table, observe.NewFlows(0), slog.New(slog.DiscardHandler))

	var asked int
	for _, workload := range []string{"host", "uid:7", "10.1.0.7", "10.1.0.1", "10.2.0.7", "10.2.0.7@cni1", "fd01::7"} {
		for _, destination := range []string{
			"api.example", "www.shop.example", "edge.docker.example", "one.shared.example", "gone.docker.example", "fresh.docker.example", "ads.tracker.example",
			"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5", "198.51.100.1", "203.0.113.1", "10.1.0.1", "192.0.2.53", "192.0.2.54", "127.0.0.1", "2001:db8::3",
		} {
			for _, rest := range []string{"TCP 443", "TCP 7443", "UDP 53", "UDP 67/68", "ICMP"} {
				request := question(t, workload+" "+destination+" "+rest)
				request.Node = "nodes/lab"
				fromServer, serverErr := nodes.ExplainConnection(t.Context(), request)
				fromAgent, agentErr := local.ExplainConnection(t.Context(), request)
				if (serverErr == nil) != (agentErr == nil) {
					t.Fatalf("%v: server %v, agent %v", request, serverErr, agentErr)
				}
				if serverErr != nil {
					continue // the other family
				}
				asked++
				fromServer.Evaluations = slices.DeleteFunc(fromServer.Evaluations, func(e *namewardv1.RuleEvaluation) bool {
					return e.GetOutcome() == namewardv1.RuleEvaluation_DISABLED || e.GetOutcome() == namewardv1.RuleEvaluation_OTHER_NODE
				})
				if diff := cmp.Diff(fromAgent, fromServer, protocmp.Transform(), sameTimes); diff != "" {
					t.Fatalf("%v (-agent +server):\n%s", request, diff)
				}
			}
		}
	}
	if asked < 300 {
		t.Errorf("only %d questions have an answer", asked)
	}
}

// served is the policy server's side of a node.
type served struct {
	*adminserver.NodeService
	id    node.ID
	rules *ruleset.RuleSet
}

// server returns a service that knows a node as its agent reports it.
func server(t *testing.T, messages []*namewardv1.Policy, mappings []observe.Mapping, at time.Time) served {
	t.Helper()
	backend, err := bolt.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = backend.Close() })
	s, err := store.Open(t.Context(), backend)
	if err != nil {
		t.Fatal(err)
	}
	for _, message := range messages {
		p, err := policy.Parse(message)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.PutPolicy(t.Context(), p, store.Guard{}); err != nil {
			t.Fatal(err)
		}
	}
	id, err := node.ParseID("lab")
	if err != nil {
		t.Fatal(err)
	}
	labels := map[string]string{"role": "web"}
	if err := s.RegisterNode(t.Context(), store.Node{ID: id, Labels: labels, TrustedResolvers: agent{}.Resolvers()}); err != nil {
		t.Fatal(err)
	}
	snapshot, _, _ := s.Snapshot()
	rules := compile.Compile(snapshot, labels)
	if err := s.UpdateNodeStatus(id, func(status *store.NodeStatus) {
		status.Connected, status.RuleSetID, status.PolicyServers = true, rules.ID(), agent{}.Servers()
		status.Addresses = []netip.Prefix{netip.MustParsePrefix("10.1.0.1/32"), netip.MustParsePrefix("192.0.2.4/32")}
	}); err != nil {
		t.Fatal(err)
	}
	return served{adminserver.NewNodeService(s, ingested(t, id, mappings, at), nil, nil, slog.New(slog.DiscardHandler), nil), id, rules}
}

// sameTimes lets times be a little apart: both sides translate from the clock that never steps, each at
// its own moment, and the wall clock is slewed in between. The times of the answers are minutes apart.
var sameTimes = protocmp.FilterMessage(&timestamppb.Timestamp{}, cmp.Comparer(func(a, b protocmp.Message) bool {
	timeOf := func(m protocmp.Message) time.Time { return m.Unwrap().(*timestamppb.Timestamp).AsTime() }
	return timeOf(a).Sub(timeOf(b)).Abs() < time.Second
}))

// ingested returns a table that heard of mappings while all of them lived.
func ingested(t *testing.T, id node.ID, mappings []observe.Mapping, at time.Time) *ingest.Table {
	t.Helper()
	table := ingest.New(1000)
	var batch ingest.Batch
	ended := uint64(0)
	for i := range mappings {
		m, err := ingest.FromProto(id, mappings[i].ToProto(id, at))
		if err != nil {
			t.Fatal(err)
		}
		batch.Mappings = append(batch.Mappings, m)
		if !mappings[i].ExpiresAt.After(at) {
			ended++
		}
	}
	table.Observe(id, batch, at.Add(-time.Hour))
	go func() { _ = table.Run(t.Context()) }()
	for table.Stats().Expired < ended {
		runtime.Gosched()
	}
	return table
}

var _ localserver.Addresses = agent{}
