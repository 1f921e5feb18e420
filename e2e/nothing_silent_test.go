package e2e_test

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"google.golang.org/genproto/googleapis/rpc/errdetails"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/e2e/lab"
)

// TestObservations: what the node resolved is upstream, by domain, address and node, and on its socket.
func TestObservations(t *testing.T) {
	f := newFleet(t)
	f.put(clientPolicy("*.shop.example"))
	address := f.learn(t, lab.ResolverV4, "www.shop.example")
	f.learn(t, lab.ResolverV6, "evil.example")
	mapping := f.awaitMapping("*.shop.example")[0]
	if got, want := mapping.GetDomain()+" "+strings.Join(mapping.GetChain(), " "), "www.shop.example edge.cdn.example pool.cdn.example"; got != want {
		t.Errorf("name and chain: got %q, want %q", got, want)
	}
	if mapping.GetAddress() != address.String() || mapping.GetClient() != lab.ClientV4.String() || mapping.GetNode() != "nodes/"+lab.NodeName {
		t.Errorf("mapping: got %v", mapping)
	}
	lifetime := mapping.GetExpireTime().AsTime().Sub(mapping.GetLastSeenTime().AsTime()).Seconds()
	if lifetime < 85 || lifetime > 91 { // a TTL of 60 s and the grace of 30 s
		t.Errorf("lifetime: got %v s, want 90 s", lifetime)
	}
	f.awaitMapping("evil.example")
	observations := namewardv1.NewObservationServiceClient(f.conn)
	for filter, want := range map[*namewardv1.MappingFilter]int{
		{Address: address.String()}:     1,
		{Address: "198.18.201.0/24"}:    1,
		{Address: "198.18.0.0/25"}:      0,
		{Domain: "*.cdn.example"}:       1,
		{Domain: "shop.example"}:        0,
		{Node: "nodes/another"}:         0,
		{Node: "nodes/" + lab.NodeName}: 2,
	} {
		response, err := observations.ListMappings(t.Context(), &namewardv1.ListMappingsRequest{Filter: filter})
		if err != nil || len(response.GetMappings()) != want {
			t.Errorf("mappings of %v: got %v, %v, want %d", filter, response.GetMappings(), err, want)
		}
	}
	socket, err := f.DialAgent()
	f.must(err)
	defer socket.Close() //nolint:errcheck // the test is over
	local := agentv1.NewLocalServiceClient(socket)
	response, err := local.ListMappings(t.Context(), &namewardv1.ListMappingsRequest{})
	if err != nil || len(response.GetMappings()) != 2 {
		t.Errorf("mappings on the socket: got %v, %v, want 2", response.GetMappings(), err)
	}
	state, err := local.GetStatus(t.Context(), &agentv1.GetStatusRequest{})
	if err != nil || state.GetServer() != lab.ServerAddress || state.GetLiveMappings() != 2 || len(state.GetDegraded()) != 0 {
		t.Errorf("status on the socket: got %v, %v", state, err)
	}
}

// TestWrongInput: what cannot be is refused with field, value and reason, and nothing of it is kept.
func TestWrongInput(t *testing.T) {
	f := newFleet(t)
	policies := namewardv1.NewPolicyServiceClient(f.conn)
	stored := f.put(clientPolicy("api.example"))
	tests := []struct {
		fact  string
		edit  func(*namewardv1.CreatePolicyRequest)
		field string
		value string
	}{
		{"a malformed pattern", func(r *namewardv1.CreatePolicyRequest) { r.Policy.Rules[0].Domains = []string{"ok.example", "a..b"} }, "policy.rules[0].domains[1]", "a..b"},
		{"an unknown enum", func(r *namewardv1.CreatePolicyRequest) { r.Policy.Mode = 42 }, "policy.mode", "42"},
		{"a bad CIDR", func(r *namewardv1.CreatePolicyRequest) { r.Policy.Rules[0].Cidrs = []string{"10.0.0.0/33"} }, "policy.rules[0].cidrs[0]", "10.0.0.0/33"},
		{"a port range upside down", func(r *namewardv1.CreatePolicyRequest) {
			r.Policy.Rules[0].Ports[0].Port, r.Policy.Rules[0].Ports[0].EndPort = 443, 80
		}, "policy.rules[0].ports[0].end_port", "80"},
		{"an id that is none", func(r *namewardv1.CreatePolicyRequest) { r.PolicyId = "Not/An/Id" }, "policy_id", "Not/An/Id"},
	}
	for _, test := range tests {
		t.Run(test.fact, func(t *testing.T) {
			request := &namewardv1.CreatePolicyRequest{PolicyId: "wrong", Policy: clientPolicy("api.example")}
			request.Policy.Name = ""
			test.edit(request)
			_, err := policies.CreatePolicy(t.Context(), request)
			if status.Code(err) != codes.InvalidArgument {
				t.Fatalf("got %v, want INVALID_ARGUMENT", err)
			}
			for _, detail := range status.Convert(err).Details() {
				for _, violation := range detail.(*errdetails.BadRequest).GetFieldViolations() {
					if violation.GetField() == test.field && strings.Contains(violation.GetDescription(), test.value) {
						return
					}
				}
			}
			t.Errorf("no violation names %s and %q: %v", test.field, test.value, status.Convert(err).Details())
		})
	}
	t.Run("a stale etag", func(t *testing.T) {
		changed := clientPolicy("late.example")
		f.put(changed)
		changed.Etag = stored.GetEtag()
		if _, err := policies.UpdatePolicy(t.Context(), &namewardv1.UpdatePolicyRequest{Policy: changed, UpdateMask: allFields}); status.Code(err) != codes.Aborted {
			t.Errorf("update: got %v, want ABORTED", err)
		}
		if _, err := policies.DeletePolicy(t.Context(), &namewardv1.DeletePolicyRequest{Name: changed.GetName(), Etag: stored.GetEtag()}); status.Code(err) != codes.Aborted {
			t.Errorf("delete: got %v, want ABORTED", err)
		}
	})
	response, err := policies.ListPolicies(t.Context(), &namewardv1.ListPoliciesRequest{})
	if err != nil || len(response.GetPolicies()) != 1 {
		t.Errorf("policies after all that: got %v, %v, want one", response.GetPolicies(), err)
	}
}
