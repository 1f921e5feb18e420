package controlplane_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/nameward/nameward/api/authority/authoritytest"
	"github.com/nameward/nameward/api/identity"
	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	peerv1 "github.com/nameward/nameward/api/nameward/peer/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/controlplane"
)

// What one server acknowledged, each sees; etags and references hold between servers; changes reach the agents of all.
func TestServersOfOneEtcd(t *testing.T) {
	e := startEtcd(t)
	a, b := startOn(t, e), startOn(t, e)
	agent := newAgent(t, "n", map[string]string{"role": "web"})
	agent.connect(b.connection)
	agent.complete()
	agent.ack()

	made := a.put("p", "web", "one.example.com")
	agent.complete()
	agent.ack()
	got, err := b.policies.GetPolicy(fresh(t), &namewardv1.GetPolicyRequest{Name: "policies/p"})
	if err != nil || !proto.Equal(got, made) {
		t.Errorf("at the other server: %v, %v; want %v", got, err, made)
	}
	changed := proto.CloneOf(made)
	changed.Rules[0].Domains = []string{"two.example.com"}
	next, err := b.policies.UpdatePolicy(t.Context(), &namewardv1.UpdatePolicyRequest{Policy: changed})
	if err != nil {
		t.Fatalf("with the etag of the other server: %v", err)
	}
	if _, err := a.policies.UpdatePolicy(t.Context(), &namewardv1.UpdatePolicyRequest{Policy: changed}); status.Code(err) != codes.Aborted {
		t.Errorf("with a stale etag: %v", err)
	}
	if next.GetEtag() == made.GetEtag() {
		t.Error("the etag has not changed")
	}
	agent.complete()
	agent.ack()

	var domains []string
	for i := range 3000 {
		domains = append(domains, fmt.Sprintf("d%d.example.org", i))
	}
	if _, err := a.sets.UpdateDomainSet(t.Context(), &namewardv1.UpdateDomainSetRequest{
		AllowMissing: true, DomainSet: &namewardv1.DomainSet{Name: "domainSets/s", Domains: domains},
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.policies.UpdatePolicy(t.Context(), &namewardv1.UpdatePolicyRequest{AllowMissing: true, Policy: &namewardv1.Policy{
		Name: "policies/of-set", Rules: []*namewardv1.Rule{{Action: namewardv1.Rule_ALLOW, DomainSets: []string{"domainSets/s"}}},
	}}); err != nil {
		t.Fatalf("a policy of a set made at the other server: %v", err)
	}
	if _, err := a.sets.DeleteDomainSet(t.Context(), &namewardv1.DeleteDomainSetRequest{Name: "domainSets/s"}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("deletion of a set that a policy of the other server names: %v", err)
	}
	if _, err := b.sets.AddDomains(t.Context(), &namewardv1.AddDomainsRequest{Name: "domainSets/s", Domains: []string{"more.example.org"}}); err != nil {
		t.Fatal(err)
	}
	set, err := a.sets.GetDomainSet(fresh(t), &namewardv1.GetDomainSetRequest{Name: "domainSets/s"})
	if err != nil || set.GetDomainCount() != 3001 || !slices.Contains(set.GetDomains(), "more.example.org") {
		t.Errorf("%d domains, %v", set.GetDomainCount(), err)
	}
	if got, err := b.sets.GetDomainSet(fresh(t), &namewardv1.GetDomainSetRequest{Name: "domainSets/s"}); err != nil || !proto.Equal(got, set) {
		t.Errorf("the servers disagree on the set: %v", err)
	}
	for _, s := range []*server{a, b} {
		s.status("n", func(st *namewardv1.NodeStatus) bool {
			return st.GetConnected() && st.GetServer() == b.connection.Target()
		})
	}
}

// What a node says is known at every server, wherever it is connected, and stays known when its server is gone; a
// server that is gone without a word is named.
func TestObservationsAreCompleteAtEveryServer(t *testing.T) {
	e := startEtcd(t)
	a, b := startOn(t, e), startOn(t, e)
	agent := newAgent(t, "n", nil)
	agent.connect(a.connection)
	agent.complete()
	agent.ack()
	began := time.Now().Add(-time.Minute)
	agent.tell(&agentv1.Observations{
		Mappings:   []*namewardv1.Mapping{observed("www.example.com", "192.0.2.1", time.Hour)},
		FlowEvents: []*namewardv1.FlowEvent{stopped("192.0.2.9", 3, began)},
	})
	known := func(s *server) string {
		mappings, err := s.mappings.ListMappings(t.Context(), &namewardv1.ListMappingsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		flows, err := s.mappings.ListFlowEvents(t.Context(), &namewardv1.ListFlowEventsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		var texts []string
		for _, m := range mappings.GetMappings() {
			texts = append(texts, m.GetDomain()+" "+m.GetNode())
		}
		for _, f := range flows.GetFlowEvents() {
			texts = append(texts, fmt.Sprintf("%d× %s", f.GetCount(), f.GetDestination().GetAddress()))
		}
		return strings.Join(append(texts, mappings.GetUnreachable()...), ", ")
	}
	want := func(s *server, want string) {
		t.Helper()
		eventually(t, s.connection, "known: "+want, func() bool { return known(s) == want })
	}
	want(b, "www.example.com nodes/n, 3× 192.0.2.9")
	explained, err := b.nodes.ExplainConnection(t.Context(), &namewardv1.ExplainConnectionRequest{Node: "nodes/n", Destination: "www.example.com", Port: 443})
	if err != nil || len(explained.GetMappings()) != 1 {
		t.Errorf("explained by %v, %v", explained.GetMappings(), err)
	}
	c := startOn(t, e)
	want(c, "www.example.com nodes/n, 3× 192.0.2.9")

	// It moves, restarted: its counts go on from nothing, and are added once.
	agent.leave()
	agent.instance, agent.batch = "another", 0
	agent.connect(b.connection)
	agent.complete()
	agent.ack()
	agent.tell(&agentv1.Observations{
		SnapshotBegin: true, SnapshotEnd: true, Mappings: []*namewardv1.Mapping{observed("other.example.com", "192.0.2.2", time.Hour)},
		FlowEvents: []*namewardv1.FlowEvent{stopped("192.0.2.9", 2, began.Add(time.Second))},
	})
	for _, s := range []*server{a, b, c} {
		want(s, "other.example.com nodes/n, 5× 192.0.2.9")
		s.status("n", func(status *namewardv1.NodeStatus) bool {
			return status.GetConnected() && status.GetServer() == b.connection.Target()
		})
	}
	b.stop()
	agent.end()
	want(a, "other.example.com nodes/n, 5× 192.0.2.9")
	for _, s := range []*server{a, c} {
		s.status("n", func(status *namewardv1.NodeStatus) bool { return !status.GetConnected() })
	}
	if _, err := c.nodes.DeleteNode(t.Context(), &namewardv1.DeleteNodeRequest{Name: "nodes/n"}); err != nil {
		t.Fatal(err)
	}
	want(a, "")
}

// Two agents that claim one node at two servers: the first keeps it, and its status tells of the other. An agent that
// moves is itself.
func TestTwoAgentsAtTwoServers(t *testing.T) {
	e := startEtcd(t)
	a, b := startOn(t, e), startOn(t, e)
	awaitHeard(t, a, b) // it is told of agents that are refused
	first := newAgent(t, "n", nil)
	first.connect(a.connection)
	first.complete()
	first.ack()
	b.status("n", func(status *namewardv1.NodeStatus) bool { return status.GetConnected() })
	second := newAgent(t, "n", nil)
	second.instance = "another"
	second.connect(b.connection)
	if code := second.end(); code != codes.AlreadyExists {
		t.Fatalf("the second agent got %v", code)
	}
	for _, s := range []*server{a, b} {
		s.status("n", func(status *namewardv1.NodeStatus) bool {
			return status.GetConnected() && strings.Contains(strings.Join(status.GetDegraded(), " "), "another agent")
		})
	}
	moved := newAgent(t, "n", nil)
	moved.connect(b.connection)
	moved.complete()
	moved.ack()
	if code := first.end(); code != codes.Aborted {
		t.Errorf("the former stream got %v", code)
	}
	for _, s := range []*server{a, b} {
		s.status("n", func(status *namewardv1.NodeStatus) bool {
			return status.GetConnected() && status.GetServer() == b.connection.Target()
		})
	}
}

// Without etcd nothing can be changed, which is said soon; what is known is still served, to agents too.
func TestWithoutEtcd(t *testing.T) {
	e := startEtcd(t)
	s := startOn(t, e)
	s.put("p", "", "one.example.com")
	agent := newAgent(t, "n", nil)
	agent.connect(s.connection)
	agent.completeWith(1)
	agent.leave()
	if err := e.Kill(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	_, err := s.policies.UpdatePolicy(t.Context(), &namewardv1.UpdatePolicyRequest{AllowMissing: true, Policy: &namewardv1.Policy{Name: "policies/q"}})
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("a change without etcd: %v", err)
	}
	if took := time.Since(began); took > 2*time.Minute {
		t.Errorf("it took %v to say so", took)
	}
	if _, err := s.policies.GetPolicy(t.Context(), &namewardv1.GetPolicyRequest{Name: "policies/p"}); err != nil {
		t.Errorf("a read without etcd: %v", err)
	}
	if _, err := s.policies.GetPolicy(fresh(t), &namewardv1.GetPolicyRequest{Name: "policies/p"}); status.Code(err) != codes.Unavailable {
		t.Errorf("a fresh read without etcd: %v", err)
	}
	agent.connect(s.connection)
	agent.complete()
	agent.ack()
	agent.leave()
	// One that has seen more elsewhere is not taken back.
	before := agent.revision
	agent.revision += 1000
	agent.connect(s.connection)
	if code := agent.end(); code != codes.Unavailable {
		t.Errorf("an agent that is ahead got %v", code)
	}
	agent.revision = before
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	health, err := healthv1.NewHealthClient(s.connection).Watch(ctx, &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	healthy := func(want healthv1.HealthCheckResponse_ServingStatus) func(*healthv1.HealthCheckResponse) bool {
		return func(response *healthv1.HealthCheckResponse) bool { return response.GetStatus() == want }
	}
	awaitStream(t, health, "the server says that it is not ready", healthy(healthv1.HealthCheckResponse_NOT_SERVING))
	for _, m := range e.Members {
		if err := m.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	awaitStream(t, health, "the server is ready again", healthy(healthv1.HealthCheckResponse_SERVING))
	if _, err := s.policies.UpdatePolicy(t.Context(), &namewardv1.UpdatePolicyRequest{AllowMissing: true, Policy: &namewardv1.Policy{
		Name: "policies/q", Rules: []*namewardv1.Rule{{Action: namewardv1.Rule_ALLOW}},
	}}); err != nil {
		t.Errorf("a change once the server is ready: %v", err)
	}
}

// A store moves from a file to etcd and back as it is: agents go on from what they hold.
func TestMigrate(t *testing.T) {
	e := startEtcd(t)
	dir, back := t.TempDir(), t.TempDir()
	s := start(t, dir)
	var domains []string
	for i := range 2000 {
		domains = append(domains, fmt.Sprintf("d%d.example.org", i))
	}
	if _, err := s.sets.UpdateDomainSet(t.Context(), &namewardv1.UpdateDomainSetRequest{
		AllowMissing: true, DomainSet: &namewardv1.DomainSet{Name: "domainSets/s", Domains: domains},
	}); err != nil {
		t.Fatal(err)
	}
	want := s.put("p", "", "one.example.com")
	agent := newAgent(t, "n", nil)
	agent.connect(s.connection)
	agent.completeWith(1)
	agent.ack()
	agent.leave()
	place := "etcd:" + strings.Join(e.Endpoints(), ",") + "/nameward/"
	migrate := func(from, to string) error {
		_, err := controlplane.Migrate(t.Context(), controlplane.DefaultConfig(), from, to)
		return err
	}
	if err := migrate("bolt:"+dir, place); err == nil || !strings.Contains(err.Error(), "a server is running on it") {
		t.Errorf("of a running server: %v", err)
	}
	s.stop()
	if err := migrate("bolt:"+dir, place); err != nil {
		t.Fatal(err)
	}
	if err := migrate("bolt:"+dir, place); err == nil || !strings.Contains(err.Error(), "holds something already") {
		t.Errorf("to a place that is not empty: %v", err)
	}
	on := startOn(t, e)
	resumes := func(s *server) {
		t.Helper()
		agent.connect(s.connection)
		if first := agent.complete()[0]; !first.GetResumed() {
			t.Errorf("the agent begins anew: %v", first)
		}
		agent.ack()
		agent.leave()
		got, err := s.policies.GetPolicy(t.Context(), &namewardv1.GetPolicyRequest{Name: "policies/p"})
		if diff := cmp.Diff(want.String(), got.String()); err != nil || diff != "" {
			t.Errorf("policy: %v (-want +got):\n%s", err, diff)
		}
	}
	resumes(on)
	want = on.put("p", "", "two.example.com")
	agent.connect(on.connection)
	agent.complete()
	agent.ack()
	agent.leave()
	if err := migrate(place, "bolt:"+back); err == nil || !strings.Contains(err.Error(), "servers are running on it") {
		t.Errorf("of a running server: %v", err)
	}
	on.stop()
	if err := migrate(place, "bolt:"+back); err != nil {
		t.Fatal(err)
	}
	resumes(start(t, back))
	if err := migrate(place, "bolt:"+back); err == nil {
		t.Error("to a directory that holds a store: done")
	}
}

// Servers know each other by their certificates; nobody else is told what nodes say.
func TestServersKnowEachOtherByCertificate(t *testing.T) {
	e := startEtcd(t)
	files := authoritytest.New(t)
	withTLS := func(c *controlplane.Config) {
		c.Insecure, c.TLS = false, files.Issue(identity.Server, "127.0.0.1")
	}
	a, b := startOn(t, e, withTLS), startOn(t, e, withTLS)
	admin := (&secured{a, files}).dial(files.Issue(identity.Admin, "ada"))
	agent := newAgent(t, "n", nil)
	agent.connect((&secured{b, files}).dial(files.Issue(identity.Node, "n")))
	agent.complete()
	agent.ack()
	agent.observe(observed("www.example.com", "192.0.2.1", time.Hour))
	eventually(t, admin, "the other server knows", func() bool {
		page, err := namewardv1.NewObservationServiceClient(admin).ListMappings(t.Context(), &namewardv1.ListMappingsRequest{})
		return err == nil && len(page.GetMappings()) == 1 && len(page.GetUnreachable()) == 0
	})
	for _, role := range []identity.Role{identity.Admin, identity.Node} {
		stream, err := peerv1.NewRelayServiceClient((&secured{a, files}).dial(files.Issue(role, "eve"))).Relay(t.Context(), &peerv1.RelayRequest{ServerId: "x"})
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != codes.PermissionDenied {
			t.Errorf("a %s got %v", role, err)
		}
	}
}
