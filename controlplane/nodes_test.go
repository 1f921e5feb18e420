package controlplane_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

// listNodes returns the names of the nodes that a filter selects, read two at a time.
func (s *server) listNodes(filter *namewardv1.NodeFilter) string {
	s.t.Helper()
	var names []string
	for request := (&namewardv1.ListNodesRequest{PageSize: 2, Filter: filter}); ; {
		page, err := s.nodes.ListNodes(s.t.Context(), request)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, n := range page.GetNodes() {
			names = append(names, n.GetName())
		}
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			return strings.Join(names, " ")
		}
	}
}

func TestNodesAreFiltered(t *testing.T) {
	s := start(t, t.TempDir())
	s.put("web", "web", "a.example.com")
	for i, role := range []string{"web", "db", "web", "web", "web"} {
		a := newAgent(t, fmt.Sprintf("n%d", i), map[string]string{"role": role, "zone": fmt.Sprint(i % 2)})
		a.connect(s.connection)
		if role == "web" {
			a.completeWith(1)
		} else {
			a.complete()
		}
		switch i {
		case 0:
			a.nack("no room", false)
			s.status(a.node, func(st *namewardv1.NodeStatus) bool { return st.GetState() == namewardv1.NodeStatus_FAILED })
		case 2:
			a.leave()
			s.status(a.node, func(st *namewardv1.NodeStatus) bool { return st.GetState() == namewardv1.NodeStatus_DISCONNECTED })
			continue
		case 3:
			a.ack()
			a.send(&agentv1.SyncRequest{Message: &agentv1.SyncRequest_Status{Status: &agentv1.StatusReport{Degraded: []string{"no clock"}}}})
			s.status(a.node, func(st *namewardv1.NodeStatus) bool { return st.GetState() == namewardv1.NodeStatus_DEGRADED })
		default:
			a.ack()
			s.status(a.node, func(st *namewardv1.NodeStatus) bool { return st.GetState() == namewardv1.NodeStatus_CURRENT })
		}
		defer a.leave()
	}
	for _, test := range []struct {
		filter *namewardv1.NodeFilter
		want   string
	}{
		{nil, "nodes/n0 nodes/n1 nodes/n2 nodes/n3 nodes/n4"},
		{&namewardv1.NodeFilter{MatchLabels: map[string]string{"role": "web"}}, "nodes/n0 nodes/n2 nodes/n3 nodes/n4"},
		{&namewardv1.NodeFilter{MatchLabels: map[string]string{"role": "web", "zone": "1"}}, "nodes/n3"},
		{&namewardv1.NodeFilter{MatchLabels: map[string]string{"rack": ""}}, ""},
		{&namewardv1.NodeFilter{Policy: "policies/web", State: namewardv1.NodeStatus_CURRENT}, "nodes/n4"},
		{&namewardv1.NodeFilter{State: namewardv1.NodeStatus_FAILED}, "nodes/n0"},
		{&namewardv1.NodeFilter{State: namewardv1.NodeStatus_DISCONNECTED}, "nodes/n2"},
		{&namewardv1.NodeFilter{State: namewardv1.NodeStatus_DEGRADED}, "nodes/n3"},
	} {
		if got := s.listNodes(test.filter); got != test.want {
			t.Errorf("filter %v: got %q, want %q", test.filter, got, test.want)
		}
	}
	_, err := s.nodes.ListNodes(t.Context(), &namewardv1.ListNodesRequest{Filter: &namewardv1.NodeFilter{Policy: "policies/none"}, PageToken: "x"})
	wantFields(t, err, "page_token", "filter.policy")
	_, err = s.nodes.ListNodes(t.Context(), &namewardv1.ListNodesRequest{Filter: &namewardv1.NodeFilter{Policy: "none", State: 77}})
	wantFields(t, err, "filter.state", "filter.policy")
}

// wantFields wants an INVALID_ARGUMENT that names these fields.
func wantFields(t *testing.T, err error, fields ...string) {
	t.Helper()
	var got []string
	for _, detail := range status.Convert(err).Details() {
		if request, ok := detail.(*errdetails.BadRequest); ok {
			for _, violation := range request.GetFieldViolations() {
				got = append(got, violation.GetField())
			}
		}
	}
	if diff := cmp.Diff(fields, got); diff != "" || status.Code(err) != codes.InvalidArgument {
		t.Errorf("got %v; fields (-want +got):\n%s", err, diff)
	}
}

func TestNodesAreWatched(t *testing.T) {
	s := start(t, t.TempDir())
	a, b := newAgent(t, "a", map[string]string{"role": "web"}), newAgent(t, "b", map[string]string{"role": "db"})
	a.connect(s.connection)
	a.complete()
	a.ack()
	s.status("a", func(st *namewardv1.NodeStatus) bool { return st.GetState() == namewardv1.NodeStatus_CURRENT })
	all := s.watchNodes(nil)
	current := s.watchNodes(&namewardv1.NodeFilter{State: namewardv1.NodeStatus_CURRENT, MatchLabels: map[string]string{"role": "web"}})
	for _, watch := range []func() string{all, current} {
		if got := watch() + watch(); got != "PUT nodes/a CURRENTsynced" {
			t.Errorf("snapshot: %s", got)
		}
	}
	b.connect(s.connection)
	b.complete()
	await(t, all, "PUT nodes/b CURRENT")
	// Of what happens to a node no step is promised, but the last.
	a.leave()
	await(t, all, "PUT nodes/a DISCONNECTED")
	if got := current(); got != "DELETE nodes/a STATE_UNSPECIFIED" {
		t.Errorf("the watch of those that are current says %s", got)
	}
	if _, err := s.nodes.DeleteNode(t.Context(), &namewardv1.DeleteNodeRequest{Name: "nodes/a"}); err != nil {
		t.Fatal(err)
	}
	await(t, all, "DELETE nodes/a STATE_UNSPECIFIED")
	b.leave()
	s.stop()
	await(t, all, "Unavailable")
}

// watchNodes begins a watch and returns what reads its next response.
func (s *server) watchNodes(filter *namewardv1.NodeFilter) func() string {
	s.t.Helper()
	stream, err := s.nodes.WatchNodes(s.t.Context(), &namewardv1.WatchNodesRequest{Filter: filter})
	if err != nil {
		s.t.Fatal(err)
	}
	return func() string {
		response, err := stream.Recv()
		switch {
		case err != nil:
			return status.Code(err).String()
		case response.GetSynced():
			return "synced"
		}
		return fmt.Sprint(response.GetChange(), " ", response.GetNode().GetName(), " ", response.GetNode().GetStatus().GetState())
	}
}

// await reads until a watch says what is wanted.
func await(t *testing.T, next func() string, want string) {
	t.Helper()
	for {
		switch got := next(); got {
		case want:
			return
		case "Unavailable", "Canceled":
			t.Fatalf("the watch ended with %s before it said %s", got, want)
		}
	}
}

func TestNodeIsForgotten(t *testing.T) {
	dataDir := t.TempDir()
	s := start(t, dataDir)
	a := newAgent(t, "n", nil)
	a.connect(s.connection)
	a.complete()
	a.observe(observed("www.example.com", "192.0.2.1", time.Hour))
	remove := func(request *namewardv1.DeleteNodeRequest) error {
		request.Name = "nodes/n"
		_, err := s.nodes.DeleteNode(t.Context(), request)
		return err
	}
	for _, validateOnly := range []bool{true, false} {
		if err := remove(&namewardv1.DeleteNodeRequest{ValidateOnly: validateOnly}); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("while it is connected: %v", err)
		}
	}
	a.leave()
	s.status("n", func(st *namewardv1.NodeStatus) bool { return !st.GetConnected() })
	if err := remove(&namewardv1.DeleteNodeRequest{ValidateOnly: true}); err != nil {
		t.Error(err)
	}
	if err := remove(&namewardv1.DeleteNodeRequest{}); err != nil {
		t.Fatal(err)
	}
	if err := remove(&namewardv1.DeleteNodeRequest{}); status.Code(err) != codes.NotFound {
		t.Errorf("when it is gone: %v", err)
	}
	if err := remove(&namewardv1.DeleteNodeRequest{AllowMissing: true}); err != nil {
		t.Error(err)
	}
	mappings, err := s.mappings.ListMappings(t.Context(), &namewardv1.ListMappingsRequest{})
	if err != nil || len(mappings.GetMappings()) != 0 {
		t.Errorf("mappings of it: %v, %v", mappings, err)
	}
	// It is durable, and who comes back is known again.
	s.stop()
	s = start(t, dataDir)
	if got := s.listNodes(nil); got != "" {
		t.Errorf("after a restart: %s", got)
	}
	a.connect(s.connection)
	defer a.leave()
	a.complete()
	if got := s.listNodes(nil); got != "nodes/n" {
		t.Errorf("when it is back: %s", got)
	}
}

func TestRuleSetIsRead(t *testing.T) {
	s := start(t, t.TempDir())
	s.replace("domainSets/large", manyDomains(10_001, "large"))
	if _, err := s.sets.CreateDomainSet(t.Context(), &namewardv1.CreateDomainSetRequest{
		DomainSetId: "small", DomainSet: &namewardv1.DomainSet{Domains: []string{"B.example", "a.example"}},
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.policies.CreatePolicy(t.Context(), &namewardv1.CreatePolicyRequest{PolicyId: "p", Policy: &namewardv1.Policy{
		Description:  "not for nodes",
		NodeSelector: &namewardv1.NodeSelector{MatchLabels: map[string]string{"role": "web"}},
		Rules:        []*namewardv1.Rule{{Action: namewardv1.Rule_ALLOW, Domains: []string{"API.example."}, DomainSets: []string{"domainSets/small", "domainSets/large"}}},
	}}); err != nil {
		t.Fatal(err)
	}
	a := newAgent(t, "n", map[string]string{"role": "web"})
	a.connect(s.connection)
	defer a.leave()
	a.completeWith(1)
	read := func(request *namewardv1.GetRuleSetRequest) *namewardv1.GetRuleSetResponse {
		t.Helper()
		response, err := s.nodes.GetRuleSet(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		return response
	}
	before := read(&namewardv1.GetRuleSetRequest{Node: "nodes/n"})
	if before.GetInForce() || before.GetRuleSetId() != a.holds.ID().String() || before.GetAppliedRuleSetId() != "" {
		t.Errorf("before it is acknowledged: %v", before)
	}
	a.ack()
	s.status("n", func(st *namewardv1.NodeStatus) bool { return st.GetState() == namewardv1.NodeStatus_CURRENT })
	got := read(&namewardv1.GetRuleSetRequest{Node: "nodes/n"})
	if !got.GetInForce() || got.GetAppliedRuleSetId() != got.GetRuleSetId() || got.GetAppliedRevision() != a.revision {
		t.Errorf("when it is acknowledged: in force %t, %s, revision %d", got.GetInForce(), got.GetAppliedRuleSetId(), got.GetAppliedRevision())
	}
	sets := got.GetDomainSets()
	if len(sets) != 2 || sets[0].GetDomainCount() != 10_001 || len(sets[0].GetDomains()) != 0 || fmt.Sprint(sets[1].GetDomains()) != "[a.example b.example]" {
		t.Errorf("domain sets: %d, %v", len(sets), sets[len(sets)-1])
	}
	policy := got.GetPolicies()[0]
	if policy.GetName() != "policies/p" || policy.GetDescription() != "" || policy.GetRules()[0].GetDomains()[0] != "api.example" || !policy.GetWorkloads()[0].GetHost() {
		t.Errorf("policy: %v", policy)
	}
	if of := read(&namewardv1.GetRuleSetRequest{Labels: map[string]string{"role": "web"}}); of.GetRuleSetId() != got.GetRuleSetId() || of.GetInForce() {
		t.Errorf("of labels: %s, in force %t", of.GetRuleSetId(), of.GetInForce())
	}
	if none := read(&namewardv1.GetRuleSetRequest{Labels: map[string]string{"role": "db"}}); len(none.GetPolicies()) != 0 {
		t.Errorf("of other labels: %v", none)
	}
	_, err := s.nodes.GetRuleSet(t.Context(), &namewardv1.GetRuleSetRequest{})
	wantFields(t, err, "node")
	_, err = s.nodes.GetRuleSet(t.Context(), &namewardv1.GetRuleSetRequest{Node: "n", Labels: map[string]string{"a": "b"}})
	wantFields(t, err, "node", "labels")
	if _, err = s.nodes.GetRuleSet(t.Context(), &namewardv1.GetRuleSetRequest{Node: "nodes/nobody"}); status.Code(err) != codes.NotFound {
		t.Errorf("of a node that never was: %v", err)
	}
}

func TestMappingsOfAPolicy(t *testing.T) {
	s := start(t, t.TempDir())
	s.replace("domainSets/set", []string{"*.example.net"})
	if _, err := s.policies.CreatePolicy(t.Context(), &namewardv1.CreatePolicyRequest{PolicyId: "p", Policy: &namewardv1.Policy{
		Rules: []*namewardv1.Rule{
			{Action: namewardv1.Rule_DENY, Domains: []string{"a.example"}}, {Action: namewardv1.Rule_ALLOW, DomainSets: []string{"domainSets/set"}},
		},
	}}); err != nil {
		t.Fatal(err)
	}
	a := newAgent(t, "n", nil)
	a.connect(s.connection)
	defer a.leave()
	a.completeWith(1)
	a.observe(
		observed("a.example", "192.0.2.1", time.Hour), observed("b.example", "192.0.2.2", time.Hour),
		observed("c.example", "192.0.2.3", time.Hour, "cdn.example.net"),
	)
	page, err := s.mappings.ListMappings(t.Context(), &namewardv1.ListMappingsRequest{Filter: &namewardv1.MappingFilter{Policy: "policies/p"}})
	if err != nil || len(page.GetMappings()) != 2 || page.GetMappings()[0].GetDomain() != "a.example" || page.GetMappings()[1].GetDomain() != "c.example" {
		t.Errorf("got %v, %v", page, err)
	}
	_, err = s.mappings.ListMappings(t.Context(), &namewardv1.ListMappingsRequest{
		Filter: &namewardv1.MappingFilter{Policy: "policies/none", Address: "x"},
	})
	wantFields(t, err, "filter.address", "filter.policy")
}

// A watch goes on after a restart of the server when nothing was missed, and begins anew otherwise.
func TestPolicyWatchResumesAfterARestart(t *testing.T) {
	dataDir := t.TempDir()
	s := start(t, dataDir)
	s.put("a", "", "a.example.com")
	next := func(token string, want string) string {
		t.Helper()
		stream, err := s.policies.WatchPolicies(t.Context(), &namewardv1.WatchPoliciesRequest{ResumeToken: token})
		if err != nil {
			t.Fatal(err)
		}
		response, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(response.GetChange(), response.GetPolicy().GetName(), response.GetReset_()); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		return response.GetResumeToken()
	}
	stream, err := s.policies.WatchPolicies(t.Context(), &namewardv1.WatchPoliciesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var token string
	for synced := false; !synced; {
		response, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		synced, token = response.GetSynced(), response.GetResumeToken()
	}
	s.stop()
	s = start(t, dataDir)
	s.put("b", "", "b.example.com")
	last := next(token, "PUTpolicies/bfalse")
	s.put("c", "", "c.example.com")
	s.stop()
	s = start(t, dataDir)
	// The change behind the token was before the restart: of it the server knows the outcome alone.
	next(last, "PUTpolicies/atrue")
}
