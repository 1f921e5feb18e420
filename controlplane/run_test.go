package controlplane_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPolicyReachesTheNodesThatItSelects(t *testing.T) {
	s := start(t, t.TempDir())
	web, db := newAgent(t, "web-1", map[string]string{"role": "web"}), newAgent(t, "db-1", map[string]string{"role": "db"})
	for _, a := range []*agent{web, db} {
		a.connect(s.connection)
		if first := a.complete(); len(first) != 1 || !first[0].GetReset_() {
			t.Errorf("%s: first received %v, want reset", a.node, first)
		}
		a.ack()
		defer a.leave()
	}
	began := time.Now()
	s.put("web", "web", "api.example.com")
	received := web.complete()
	t.Logf("created and received within %v", time.Since(began))
	if len(received) != 1 || received[0].GetResumed() || received[0].GetReset_() || len(received[0].GetChanges()) != 1 {
		t.Errorf("received %v, want one change", received)
	}
	pending := s.status("web-1", func(st *namewardv1.NodeStatus) bool { return st.GetWantedRevision() == web.revision })
	if pending.GetAppliedRevision() == web.revision {
		t.Errorf("applied before the agent said so: %v", pending)
	}
	web.ack()
	applied := s.status("web-1", func(st *namewardv1.NodeStatus) bool { return st.GetAppliedRevision() == st.GetWantedRevision() })
	if applied.GetRuleSetId() != web.holds.ID().String() || !applied.GetConnected() || applied.GetAgentVersion() != "1.2.3" || applied.GetAppliedTime() == nil {
		t.Errorf("status: %v", applied)
	}
	// The other node got nothing: what it gets next is of the next policy.
	s.put("db", "db", "db.example.com")
	db.complete()
	if len(db.holds.Policies) != 1 || db.holds.Policies[0].Name != "policies/db" {
		t.Errorf("db-1 holds %v", db.holds)
	}
}

func TestRestartKeepsPoliciesAndAgentsResume(t *testing.T) {
	dataDir := t.TempDir()
	s := start(t, dataDir)
	s.put("a", "", "a.example.com")
	a := newAgent(t, "n", map[string]string{"zone": "east"})
	a.connect(s.connection)
	a.completeWith(1)
	a.ack()
	revision := a.revision
	stopped := make(chan struct{})
	go func() { s.stop(); close(stopped) }()
	for a.next().GetDrain() == nil {
	}
	a.leave()
	<-stopped

	s = start(t, dataDir)
	list, err := s.policies.ListPolicies(t.Context(), &namewardv1.ListPoliciesRequest{})
	if err != nil || len(list.GetPolicies()) != 1 {
		t.Errorf("after the restart: %v, %v", list, err)
	}
	known := s.status("n", func(st *namewardv1.NodeStatus) bool { return st.GetWantedRevision() == revision })
	if known.GetConnected() || known.GetAppliedRevision() != 0 {
		t.Errorf("before it is back: %v", known)
	}
	a.connect(s.connection)
	received := a.complete()
	if len(received) != 1 || !received[0].GetResumed() || received[0].GetReset_() || len(received[0].GetChanges()) != 0 || a.revision != revision {
		t.Errorf("received %v, want resumed at %d", received, revision)
	}
	s.status("n", func(st *namewardv1.NodeStatus) bool { return st.GetConnected() && st.GetAppliedRevision() == revision })
	a.leave()
	s.status("n", func(st *namewardv1.NodeStatus) bool { return !st.GetConnected() })

	// A node that is away is shown to be behind, and gets what changed when it is back.
	s.put("b", "", "b.example.com")
	behind := s.status("n", func(st *namewardv1.NodeStatus) bool { return st.GetWantedRevision() > revision })
	if behind.GetAppliedRevision() != revision {
		t.Errorf("while it is away: %v", behind)
	}
	a.connect(s.connection)
	received = a.complete()
	if len(received) != 1 || !received[0].GetResumed() || len(received[0].GetChanges()) != 1 || a.revision != behind.GetWantedRevision() {
		t.Errorf("received %v, want the one change", received)
	}
	a.leave()
}

func TestNackedRuleSetIsNotSentAgain(t *testing.T) {
	s := start(t, t.TempDir())
	a := newAgent(t, "n", map[string]string{"role": "web"})
	a.connect(s.connection)
	defer a.leave()
	a.complete()
	a.ack()
	good := a.revision
	s.put("bad", "", "bad.example.com")
	a.complete()
	a.nack("the map is full", false)
	got := s.status("n", func(st *namewardv1.NodeStatus) bool { return st.GetLastError() != "" })
	if got.GetLastError() != "the map is full" || got.GetAppliedRevision() != good || got.GetWantedRevision() != a.revision {
		t.Errorf("status: %v", got)
	}
	// A commit that does not concern the node brings nothing; the next that does is sent as changes.
	s.put("other", "db", "other.example.com")
	a.observe(observed("x.example.com", "192.0.2.1", time.Hour))
	s.put("bad", "", "good.example.com")
	if received := a.complete(); len(received) != 1 || len(received[0].GetChanges()) != 1 || received[0].GetReset_() {
		t.Errorf("received %v, want one change", received)
	}
	a.ack()
	s.status("n", func(st *namewardv1.NodeStatus) bool {
		return st.GetLastError() == "" && st.GetAppliedRevision() == a.revision
	})
}

func TestResyncBringsTheWhole(t *testing.T) {
	s := start(t, t.TempDir())
	s.put("a", "", "a.example.com")
	a := newAgent(t, "n", nil)
	a.connect(s.connection)
	defer a.leave()
	a.completeWith(1)
	a.nack("the id is another", true)
	if received := a.complete(); !received[0].GetReset_() || len(a.holds.Policies) != 1 {
		t.Errorf("received %v, want the whole", received)
	}
	// An agent that never agrees is not sent the same for ever; the next rule set comes whole.
	a.nack("the id is another", true)
	a.observe(observed("x.example.com", "192.0.2.1", time.Hour))
	s.put("b", "", "b.example.com")
	if received := a.complete(); !received[0].GetReset_() || len(a.holds.Policies) != 2 {
		t.Errorf("received %v, want the whole", received)
	}
}

func TestOneAgentANode(t *testing.T) {
	s := start(t, t.TempDir())
	first := newAgent(t, "n", nil)
	first.connect(s.connection)
	first.complete()

	second := newAgent(t, "n", nil)
	second.instance = "another"
	second.connect(s.connection)
	if code := second.end(); code != codes.AlreadyExists {
		t.Errorf("the second agent got %v", code)
	}
	back := newAgent(t, "n", nil)
	back.connect(s.connection)
	back.complete()
	if code := first.end(); code != codes.Aborted {
		t.Errorf("the stream that was replaced ended with %v", code)
	}
	s.status("n", func(st *namewardv1.NodeStatus) bool { return st.GetConnected() })
	back.leave()
	s.status("n", func(st *namewardv1.NodeStatus) bool { return !st.GetConnected() })
	second.connect(s.connection)
	second.complete()
	second.leave()
}

func TestFirstMessageMustBeHello(t *testing.T) {
	s := start(t, t.TempDir())
	a := newAgent(t, "n", nil)
	a.open(s.connection)
	a.ack()
	if code := a.end(); code != codes.InvalidArgument {
		t.Errorf("got %v", code)
	}
	a.node = "not a node"
	a.connect(s.connection)
	if code := a.end(); code != codes.InvalidArgument {
		t.Errorf("a bad node id got %v", code)
	}
}

func TestLargePolicyPasses(t *testing.T) {
	s := start(t, t.TempDir())
	a := newAgent(t, "n", nil)
	a.connect(s.connection)
	defer a.leave()
	a.complete()
	rule := &namewardv1.Rule{Action: namewardv1.Rule_ALLOW}
	for i := range 60_000 { // more bytes than a message may have by default
		rule.Domains = append(rule.Domains, fmt.Sprintf("host-%d.%s.example.com", i, strings.Repeat("long", 13)))
	}
	if _, err := s.policies.CreatePolicy(t.Context(), &namewardv1.CreatePolicyRequest{PolicyId: "large", Policy: &namewardv1.Policy{Rules: []*namewardv1.Rule{rule}}}); err != nil {
		t.Fatal(err)
	}
	a.complete()
	if got := len(a.holds.Policies[0].Rules[0].Domains); got != len(rule.Domains) {
		t.Errorf("received %d patterns", got)
	}
}

func TestListNodes(t *testing.T) {
	s := start(t, t.TempDir())
	for _, name := range []string{"b", "a", "c"} {
		a := newAgent(t, name, map[string]string{"name": name})
		a.connect(s.connection)
		a.complete()
		a.send(&agentv1.SyncRequest{Message: &agentv1.SyncRequest_Status{Status: &agentv1.StatusReport{Counters: map[string]uint64{"verdicts_deny": 7}}}})
		s.status(name, func(st *namewardv1.NodeStatus) bool { return st.GetCounters()["verdicts_deny"] == 7 })
		defer a.leave()
	}
	var names []string
	for request := (&namewardv1.ListNodesRequest{PageSize: 2}); ; {
		page, err := s.nodes.ListNodes(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range page.GetNodes() {
			names = append(names, n.GetName()+n.GetLabels()["name"])
		}
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			break
		}
	}
	if got := strings.Join(names, " "); got != "nodes/aa nodes/bb nodes/cc" {
		t.Errorf("nodes: %s", got)
	}
}

func TestHealthReflectionAndMetrics(t *testing.T) {
	s := start(t, t.TempDir())
	s.put("a", "", "a.example.com")
	for _, service := range []string{"", "nameward.v1.PolicyService", "nameward.v1.NodeService", "nameward.v1.ObservationService", "nameward.agent.v1.SyncService"} {
		got, err := healthv1.NewHealthClient(s.connection).Check(t.Context(), &healthv1.HealthCheckRequest{Service: service})
		if err != nil || got.GetStatus() != healthv1.HealthCheckResponse_SERVING {
			t.Errorf("health of %q: %v, %v", service, got, err)
		}
	}
	for _, service := range []string{reflectionv1.ServerReflection_ServiceDesc.ServiceName, reflectionv1alpha.ServerReflection_ServiceDesc.ServiceName} {
		stream, err := reflectionv1.NewServerReflectionClient(s.connection).ServerReflectionInfo(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		request := &reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: service}}
		if err := stream.Send(request); err != nil {
			t.Fatal(err)
		}
		if got, err := stream.Recv(); err != nil || got.GetFileDescriptorResponse() == nil {
			t.Errorf("reflection of %s: %v, %v", service, got, err)
		}
		if err := stream.CloseSend(); err != nil {
			t.Error(err)
		}
	}
	response, err := http.Get("http://" + s.metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"nameward_server_streams 0", "nameward_server_revision 2", "nameward_server_publish_latency_seconds_count", "nameward_server_ingest_mappings 0",
		"nameward_server_commits_total 1", `nameward_server_requests_total{code="OK",method="/nameward.v1.PolicyService/UpdatePolicy"} 1`,
	} {
		if !strings.Contains(string(text), name) {
			t.Errorf("metrics lack %s", name)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestPoliciesThatNoNodeCouldHoldAreRefused(t *testing.T) {
	s := start(t, t.TempDir())
	rule := &namewardv1.Rule{Action: namewardv1.Rule_ALLOW}
	for i := range 70_000 {
		rule.Domains = append(rule.Domains, fmt.Sprintf("a%d.example", i))
	}
	create := func(id, role string) error {
		_, err := s.policies.CreatePolicy(t.Context(), &namewardv1.CreatePolicyRequest{PolicyId: id, Policy: &namewardv1.Policy{
			NodeSelector: &namewardv1.NodeSelector{MatchLabels: map[string]string{"role": role}}, Rules: []*namewardv1.Rule{rule},
		}})
		return err
	}
	for _, name := range []string{"web", "db"} {
		a := newAgent(t, name, map[string]string{"role": name})
		a.connect(s.connection)
		defer a.leave()
		a.complete()
	}
	if err := create("one", "web"); err != nil {
		t.Fatal(err)
	}
	for i := range rule.Domains {
		rule.Domains[i] = "b" + rule.Domains[i]
	}
	if err := create("two", "web"); status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "140000 domain patterns") {
		t.Errorf("together too much for web: %v", err)
	}
	if err := create("two", "db"); err != nil {
		t.Errorf("db has nothing else: %v", err)
	}
}
