package localserver_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/nameward/nameward/api/domain"
	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/dataplane/localserver"
	"github.com/nameward/nameward/dataplane/observe"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// agent is an agent with a fixed rule set.
type agent struct {
	rules  *ruleset.RuleSet
	faults *faults
}

func (agent) Status() *agentv1.GetStatusResponse {
	return &agentv1.GetStatusResponse{Server: "127.0.0.1:7443"}
}

// faults are those of the agent, which a test sets.
type faults struct {
	mu      sync.Mutex // guards both
	list    []string
	changed chan struct{}
}

func (f *faults) set(list ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.changed)
	f.list, f.changed = list, make(chan struct{})
}

func (agent) TakeIn() {}

func (a agent) Degraded() ([]string, <-chan struct{}) {
	if a.faults == nil {
		return nil, nil
	}
	a.faults.mu.Lock()
	defer a.faults.mu.Unlock()
	return a.faults.list, a.faults.changed
}

func (a agent) Rules() *ruleset.RuleSet { return a.rules }

// addresses are those of a node with one resolver, one server and one address.
type addresses struct{}

func (addresses) Resolvers() []netip.AddrPort {
	return []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53")}
}

func (addresses) Servers() []netip.AddrPort {
	return []netip.AddrPort{netip.MustParseAddrPort("192.0.2.54:7443")}
}

func (addresses) Own(address netip.Addr) (bool, error) {
	if address == netip.MustParseAddr("192.0.2.99") {
		return false, errors.New("no netlink")
	}
	return address == netip.MustParseAddr("192.0.2.55"), nil
}

func name(t *testing.T, text string) domain.Name {
	t.Helper()
	n, err := domain.ParseName(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// serve starts a server and returns a client of it and the path of its socket.
func serve(t *testing.T, rules *ruleset.RuleSet, table *observe.Table) (agentv1.LocalServiceClient, *grpc.ClientConn, string) {
	t.Helper()
	return serveFlows(t, rules, table, observe.NewFlows(0))
}

func serveFlows(t *testing.T, rules *ruleset.RuleSet, table *observe.Table, flows *observe.Flows) (agentv1.LocalServiceClient, *grpc.ClientConn, string) {
	t.Helper()
	return serveAgent(t, agent{rules: rules}, table, flows)
}

func serveAgent(t *testing.T, a agent, table *observe.Table, flows *observe.Flows) (agentv1.LocalServiceClient, *grpc.ClientConn, string) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "run", "agent.sock")
	id, err := node.ParseID("lab")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	server := localserver.New(socket, id, a, addresses{}, table, flows, slog.New(slog.DiscardHandler))
	go func() { done <- server.Run(ctx) }()
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if _, err := os.Stat(socket); err == nil {
			t.Error("the socket is left")
		}
	})
	return agentv1.NewLocalServiceClient(conn), conn, socket
}

func learn(t *testing.T, table *observe.Table, address string, names ...string) {
	t.Helper()
	answer := observe.Answer{
		Addresses: []observe.Address{{Address: netip.MustParseAddr(address), Names: len(names)}},
		Client:    netip.MustParseAddr("10.1.0.7"), LearnedAt: time.Now(), ExpiresAt: time.Now().Add(time.Minute),
	}
	for _, text := range names {
		answer.Names = append(answer.Names, name(t, text))
	}
	table.Record(answer)
}

// TestHealthFollowsFaults: whoever watches hears that a fault came, and that it went; the agent itself is
// there all the while.
func TestHealthFollowsFaults(t *testing.T) {
	f := &faults{changed: make(chan struct{})}
	_, conn, _ := serveAgent(t, agent{faults: f}, observe.NewTable(0, 0), observe.NewFlows(0))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	watch, err := healthv1.NewHealthClient(conn).Watch(ctx, &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	expect := func(want healthv1.HealthCheckResponse_ServingStatus) {
		t.Helper()
		got, err := watch.Recv()
		if err != nil || got.GetStatus() != want {
			t.Fatalf("health %v, %v; want %v", got.GetStatus(), err, want)
		}
	}
	expect(healthv1.HealthCheckResponse_SERVING)
	f.set("rules do not stand")
	expect(healthv1.HealthCheckResponse_NOT_SERVING)
	alive, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{Service: agentv1.LocalService_ServiceDesc.ServiceName})
	if err != nil || alive.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("the agent itself: %v, %v; want it to be there", alive.GetStatus(), err)
	}
	f.set()
	expect(healthv1.HealthCheckResponse_SERVING)
}

func TestSocketIsForItsOwnerAlone(t *testing.T) {
	client, conn, socket := serve(t, nil, observe.NewTable(0, 0))
	got, err := client.GetStatus(t.Context(), &agentv1.GetStatusRequest{})
	if err != nil || got.GetServer() != "127.0.0.1:7443" {
		t.Errorf("GetStatus: %v, %v", got, err)
	}
	info, err := os.Stat(socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the socket: %v, %v; want 0600", info.Mode(), err)
	}
	health, err := healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{})
	if err != nil || health.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", health, err)
	}
}

func TestSecondServerIsRefused(t *testing.T) {
	client, _, socket := serve(t, nil, observe.NewTable(0, 0))
	if _, err := client.GetStatus(t.Context(), &agentv1.GetStatusRequest{}); err != nil {
		t.Fatal(err)
	}
	second := localserver.New(socket, node.ID{}, agent{}, addresses{}, observe.NewTable(0, 0), observe.NewFlows(0), slog.New(slog.DiscardHandler))
	if err := second.Run(t.Context()); err == nil {
		t.Error("two agents serve one socket")
	}
}

func TestFileInPlaceOfTheSocketStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if removed, err := localserver.Remove(path); err == nil || removed != nil {
		t.Errorf("Remove: %v, %v; want an error", removed, err)
	}
	server := localserver.New(path, node.ID{}, agent{}, addresses{}, observe.NewTable(0, 0), observe.NewFlows(0), slog.New(slog.DiscardHandler))
	if err := server.Run(t.Context()); err == nil {
		t.Error("Run succeeded")
	}
}

func TestListMappingsByPage(t *testing.T) {
	table := observe.NewTable(0, 0)
	for i := range 5 {
		learn(t, table, "192.0.2.1", fmt.Sprintf("n%d.example", i))
		learn(t, table, "2001:db8::1", fmt.Sprintf("n%d.example", i))
	}
	client, _, _ := serve(t, nil, table)
	var got []string
	request := &namewardv1.ListMappingsRequest{PageSize: 3}
	for {
		page, err := client.ListMappings(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range page.GetMappings() {
			got = append(got, m.GetDomain()+" "+m.GetAddress()+" "+m.GetNode())
		}
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			break
		}
	}
	var want []string
	for i := range 5 {
		want = append(want, fmt.Sprintf("n%d.example 192.0.2.1 nodes/lab", i), fmt.Sprintf("n%d.example 2001:db8::1 nodes/lab", i))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("mappings (-want +got): %s", diff)
	}
}

func TestListMappingsByFilter(t *testing.T) {
	table := observe.NewTable(0, 0)
	learn(t, table, "192.0.2.1", "www.example.com", "edge.cdn.example")
	learn(t, table, "192.0.2.2", "example.com")
	learn(t, table, "198.51.100.1", "other.example.org")
	client, _, _ := serve(t, nil, table)
	cases := []struct {
		filter *namewardv1.MappingFilter
		want   []string
	}{
		{&namewardv1.MappingFilter{Domain: "*.Example.com"}, []string{"www.example.com"}},
		{&namewardv1.MappingFilter{Domain: "*.cdn.example"}, []string{"www.example.com"}},
		{&namewardv1.MappingFilter{Address: "192.0.2.0/24"}, []string{"example.com", "www.example.com"}},
		{&namewardv1.MappingFilter{Address: "198.51.100.1", Node: "nodes/lab"}, []string{"other.example.org"}},
		{&namewardv1.MappingFilter{Node: "nodes/other"}, nil},
	}
	for _, c := range cases {
		page, err := client.ListMappings(t.Context(), &namewardv1.ListMappingsRequest{Filter: c.filter})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, m := range page.GetMappings() {
			got = append(got, m.GetDomain())
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%v (-want +got): %s", c.filter, diff)
		}
	}
}

func TestEveryFaultOfARequestIsNamed(t *testing.T) {
	client, _, _ := serve(t, nil, observe.NewTable(0, 0))
	_, listErr := client.ListMappings(t.Context(), &namewardv1.ListMappingsRequest{
		Filter: &namewardv1.MappingFilter{Domain: "a..b", Address: "x", Node: "lab"}, PageSize: -1, PageToken: "?",
	})
	_, explainErr := client.ExplainConnection(t.Context(), &namewardv1.ExplainConnectionRequest{
		Node: "nodes/other", Labels: map[string]string{"a": "b"}, Workload: "uid:x", Destination: "a b", Port: 70000,
	})
	for err, want := range map[error]map[string]string{
		listErr:    {"filter.domain": `"a..b"`, "filter.address": `"x"`, "filter.node": `"lab"`, "page_size": `"-1"`, "page_token": `"?"`},
		explainErr: {"node": `"nodes/other"`, "labels": `"a=b"`, "workload": `"uid:x"`, "destination": `"a b"`, "port": `"70000"`},
	} {
		got := violations(t, err)
		for field, value := range want {
			if !strings.Contains(got[field], value) {
				t.Errorf("%s: %q, want a violation that names %s", field, got[field], value)
			}
		}
		if len(got) != len(want) {
			t.Errorf("violations = %v, want those of %v alone", got, want)
		}
	}
}

// violations returns the descriptions of a BadRequest by field, and fails the test if err is none.
func violations(t *testing.T, err error) map[string]string {
	t.Helper()
	s := status.Convert(err)
	if s.Code() != codes.InvalidArgument {
		t.Fatalf("error = %v, want INVALID_ARGUMENT", err)
	}
	found, reason := map[string]string{}, ""
	for _, detail := range s.Details() {
		switch detail := detail.(type) {
		case *errdetails.BadRequest:
			for _, violation := range detail.GetFieldViolations() {
				found[violation.GetField()] = violation.GetDescription()
			}
		case *errdetails.ErrorInfo:
			reason = detail.GetReason()
		}
	}
	if reason != "INVALID_FIELD" {
		t.Errorf("%v has the reason %q, want INVALID_FIELD", err, reason)
	}
	return found
}

// A page goes on where the one before ended, of the same list and under the same filter alone.
func TestPagesOfAnotherFilterAreRefused(t *testing.T) {
	table := observe.NewTable(0, 0)
	for _, name := range []string{"a.example", "b.example", "c.test"} {
		learn(t, table, "192.0.2.1", name)
	}
	client, _, _ := serve(t, nil, table)
	request := &namewardv1.ListMappingsRequest{Filter: &namewardv1.MappingFilter{Domain: "*.example"}, PageSize: 1}
	page, err := client.ListMappings(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	request.PageToken, request.PageSize = page.GetNextPageToken(), 10
	if page, err := client.ListMappings(t.Context(), request); err != nil || len(page.GetMappings()) != 1 {
		t.Errorf("got %v, %v, want the one mapping left: a page may have another size", page, err)
	}
	request.Filter = nil
	_, err = client.ListMappings(t.Context(), request)
	if got := violations(t, err); len(got) != 1 || got["page_token"] == "" {
		t.Errorf("violations = %v, want one of page_token", got)
	}
	_, err = client.ListFlowEvents(t.Context(), &namewardv1.ListFlowEventsRequest{PageToken: request.GetPageToken()})
	if got := violations(t, err); len(got) != 1 || got["page_token"] == "" {
		t.Errorf("violations = %v, want one of page_token", got)
	}
}

func TestExplainConnection(t *testing.T) {
	pattern, err := domain.ParsePattern("*.example.com")
	if err != nil {
		t.Fatal(err)
	}
	rules := ruleset.New([]ruleset.Policy{{
		Name:      "policies/web",
		Workloads: []ruleset.Workload{{CIDRs: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")}}},
		Rules:     []ruleset.Rule{{Domains: []domain.Pattern{pattern}, Ports: []ruleset.Ports{{Protocol: ruleset.TCP, First: 443, Last: 443}}}},
	}})
	table := observe.NewTable(0, 0)
	learn(t, table, "192.0.2.1", "cdn.other.example", "www.example.com")
	client, _, _ := serve(t, rules, table)
	cases := []struct {
		workload, destination string
		port                  uint32
		verdict               namewardv1.Verdict
		policy                string
		mappings              int
	}{
		{"10.1.0.7", "www.example.com", 443, namewardv1.Verdict_ALLOW, "policies/web", 1},
		{"10.1.0.7", "192.0.2.1", 443, namewardv1.Verdict_ALLOW, "policies/web", 1},
		{"10.1.0.7", "192.0.2.1", 80, namewardv1.Verdict_DENY, "", 1},
		{"10.1.0.7", "192.0.2.9", 443, namewardv1.Verdict_DENY, "", 0},
		{"10.2.0.7", "192.0.2.9", 443, namewardv1.Verdict_ALLOW, "", 0},
		{"host", "192.0.2.9", 443, namewardv1.Verdict_ALLOW, "", 0},
		{"uid:1000", "192.0.2.9", 443, namewardv1.Verdict_ALLOW, "", 0},
	}
	for _, c := range cases {
		got, err := client.ExplainConnection(t.Context(), &namewardv1.ExplainConnectionRequest{
			Workload: c.workload, Destination: c.destination, Protocol: namewardv1.Protocol_TCP, Port: c.port,
		})
		if err != nil {
			t.Fatal(err)
		}
		if got.GetVerdict() != c.verdict || got.GetPolicy() != c.policy || len(got.GetMappings()) != c.mappings || got.GetReason() == "" {
			t.Errorf("%s to %s port %d: got %v, want %v by %q with %d mappings", c.workload, c.destination, c.port, got, c.verdict, c.policy, c.mappings)
		}
	}
}
