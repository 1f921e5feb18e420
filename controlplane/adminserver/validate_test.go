package adminserver_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/controlplane/adminserver"
)

// Constraints of the protos and faults that only the parser finds come in one answer, each with its field
// in the same form, its value, and once.
func TestAllFaultsAtOnce(t *testing.T) {
	s := start(t)
	_, err := s.CreatePolicy(t.Context(), &namewardv1.CreatePolicyRequest{
		PolicyId: "Web",
		Policy: &namewardv1.Policy{
			Name:         "policies/ignored",
			Description:  strings.Repeat("x", 2000),
			Mode:         9,
			NodeSelector: &namewardv1.NodeSelector{MatchLabels: map[string]string{"role": strings.Repeat("v", 300)}},
			Workloads: []*namewardv1.Workload{
				{Cidrs: []string{"10.1.0.0/24", "10.0.0.1/8"}},
				{Uid: proto.Uint32(1000), SystemdUnit: "web"},
				{},
			},
			Rules: []*namewardv1.Rule{
				{Domains: []string{"api.example.com", "bad..example"}},
				{
					Action: namewardv1.Rule_ALLOW, Domains: []string{"www.*.*.com"}, DomainSets: []string{"domainSets/SaaS"},
					Cidrs: []string{"fe80::/129"},
					Ports: []*namewardv1.Port{
						{Port: 80}, {Protocol: namewardv1.Protocol_TCP, Port: 70000}, {Protocol: namewardv1.Protocol_UDP, Port: 9, EndPort: 3},
					},
					QueryAction: 9,
				},
			},
		},
	})
	got := violations(t, err)
	want := map[string]string{
		"policy_id":          `"Web"`,
		"policy.description": "xxx…",
		"policy.mode":        "9",
		"policy.node_selector.match_labels[\"role\"]": "vvv…",
		"policy.workloads[0].cidrs[1]":                `"10.0.0.1/8"`,
		"policy.workloads[1].systemd_unit":            `"web"`,
		"policy.workloads[2]":                         "selects nothing",
		"policy.rules[0].action":                      "ACTION_UNSPECIFIED",
		"policy.rules[0].domains[1]":                  `"bad..example"`,
		"policy.rules[1].domains[0]":                  `"www.*.*.com"`,
		"policy.rules[1].domain_sets[0]":              `"domainSets/SaaS"`,
		"policy.rules[1].cidrs[0]":                    `"fe80::/129"`,
		"policy.rules[1].ports[0].protocol":           "PROTOCOL_UNSPECIFIED",
		"policy.rules[1].ports[1].port":               `"70000"`,
		"policy.rules[1].ports[2].end_port":           `"3"`,
		"policy.rules[1].query_action":                "9",
	}
	for field, part := range want {
		if !strings.Contains(got[field], part) {
			t.Errorf("%s: %q, want a violation with %s", field, got[field], part)
		}
	}
	for field, description := range got {
		if _, expected := want[field]; !expected {
			t.Errorf("violation of %s that is none: %q", field, description)
		}
	}
}

// A request without a fault of the protos reaches the handler; the paths are the same from there.
func TestFaultsOfTheParserAlone(t *testing.T) {
	s := start(t)
	bad := &namewardv1.Policy{Rules: []*namewardv1.Rule{{Action: namewardv1.Rule_ALLOW, Domains: []string{"ok.example", "a b.example"}}}}
	_, err := s.CreatePolicy(t.Context(), &namewardv1.CreatePolicyRequest{PolicyId: "web", Policy: bad})
	if got := violations(t, err); !strings.Contains(got["policy.rules[0].domains[1]"], `"a b.example"`) || len(got) != 1 {
		t.Errorf("violations = %v, want one of policy.rules[0].domains[1] that names the value", got)
	}
	if message := status.Convert(err).Message(); !strings.Contains(message, "policy.rules[0].domains[1]") || !strings.Contains(message, "a b.example") {
		t.Errorf("message = %q, want field and value in it: many clients show nothing else", message)
	}
}

// An address is a pattern by its characters, and no name: a rule that is to deny it would deny nothing.
func TestAddressesAreNoDomains(t *testing.T) {
	s := start(t)
	ctx := t.Context()
	domains := []string{"ok.example", "192.0.2.1", "192.0.2.2.", "192.0.2", "1.2.3.4.in-addr.arpa", "*.192.0.2.1"}
	rules := &namewardv1.Policy{Name: "policies/web", Rules: []*namewardv1.Rule{{Action: namewardv1.Rule_DENY, Domains: domains}}}
	_, createErr := s.CreatePolicy(ctx, &namewardv1.CreatePolicyRequest{PolicyId: "web", Policy: rules})
	_, updateErr := s.UpdatePolicy(ctx, &namewardv1.UpdatePolicyRequest{Policy: rules, AllowMissing: true})
	_, setErr := s.sets.CreateDomainSet(ctx, &namewardv1.CreateDomainSetRequest{DomainSetId: "saas", DomainSet: &namewardv1.DomainSet{Domains: domains}})
	_, updateSetErr := s.sets.UpdateDomainSet(ctx, &namewardv1.UpdateDomainSetRequest{DomainSet: &namewardv1.DomainSet{Name: "domainSets/saas", Domains: domains}, AllowMissing: true})
	_, replaceErr := s.replace(t, &namewardv1.ReplaceDomainsRequest{Name: "domainSets/saas", Domains: domains, AllowMissing: true})
	_, addErr := s.sets.AddDomains(ctx, &namewardv1.AddDomainsRequest{Name: s.createSet(t, "more").GetName(), Domains: domains})
	for _, test := range []struct {
		err  error
		path string
	}{
		{createErr, "policy.rules[0]."}, {updateErr, "policy.rules[0]."}, {setErr, "domain_set."}, {updateSetErr, "domain_set."}, {replaceErr, ""}, {addErr, ""},
	} {
		got := violations(t, test.err)
		for _, field := range []string{"domains[1]", "domains[2]"} {
			if field = test.path + field; !strings.Contains(got[field], "is an address") {
				t.Errorf("violations = %v, want one of %s", got, field)
			}
		}
		if len(got) != 2 {
			t.Errorf("violations = %v, want those of the addresses alone", got)
		}
	}
	if _, err := s.sets.RemoveDomains(ctx, &namewardv1.RemoveDomainsRequest{Name: "domainSets/more", Domains: domains}); err != nil {
		t.Errorf("what a set may have from before cannot be removed: %v", err)
	}
}

// What a constraint of the protos refuses does not hide what only the handler would.
func TestAllFaultsOfEachRequestAtOnce(t *testing.T) {
	v, err := adminserver.NewValidator(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		request proto.Message
		want    []string
	}{
		"a mask and a policy": {
			&namewardv1.UpdatePolicyRequest{
				Policy:     &namewardv1.Policy{Name: "policies/web", Mode: 9},
				UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"bogus"}},
			},
			[]string{"policy.mode", "update_mask.paths[0]"},
		},
		"a mask and a domain set": {
			&namewardv1.UpdateDomainSetRequest{
				DomainSet:  &namewardv1.DomainSet{Name: "SaaS", Description: strings.Repeat("x", 2000), Domains: []string{"ok.example", "a..b"}},
				UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"domains", "bogus"}},
			},
			[]string{"domain_set.description", "domain_set.domains[1]", "domain_set.name", "update_mask.paths[1]"},
		},
		"a new domain set": {
			&namewardv1.CreateDomainSetRequest{DomainSetId: "SaaS", DomainSet: &namewardv1.DomainSet{Domains: []string{"a b", "ok.example", "*.*"}}},
			[]string{"domain_set.domains[0]", "domain_set.domains[2]", "domain_set_id"},
		},
		"more domains than a message may have": {
			&namewardv1.CreateDomainSetRequest{DomainSetId: "saas", DomainSet: &namewardv1.DomainSet{Domains: append(make([]string, 0), strings.Split(strings.Repeat("a.example ", 10_000)+"a..b", " ")...)}},
			[]string{"domain_set.domains", "domain_set.domains[10000]"},
		},
		"domains to add":     {&namewardv1.AddDomainsRequest{Name: "saas", Domains: []string{"a..b"}}, []string{"domains[0]", "name"}},
		"no domains to add":  {&namewardv1.AddDomainsRequest{Name: "saas"}, []string{"domains", "name"}},
		"domains to remove":  {&namewardv1.RemoveDomainsRequest{Name: "saas", Domains: []string{"a..b"}}, []string{"domains[0]", "name"}},
		"a set to delete":    {&namewardv1.DeleteDomainSetRequest{}, []string{"name"}},
		"a page of sets":     {&namewardv1.ListDomainSetsRequest{PageSize: -1, PageToken: "x"}, []string{"page_size", "page_token"}},
		"a page of a set":    {&namewardv1.ListDomainsRequest{Name: "saas", PageSize: -1, PageToken: "x"}, []string{"name", "page_size", "page_token"}},
		"domains to replace": {&namewardv1.ReplaceDomainsRequest{Name: "saas", Domains: []string{"a..b"}}, []string{"domains[0]", "name"}},
		"a page of policies": {
			&namewardv1.ListPoliciesRequest{PageSize: -1, PageToken: "x", Filter: &namewardv1.PolicyFilter{Domain: "a..b"}},
			[]string{"filter.domain", "page_size", "page_token"},
		},
		"a page of nodes": {&namewardv1.ListNodesRequest{PageSize: -1, PageToken: "x"}, []string{"page_size", "page_token"}},
		"a page of mappings": {
			&namewardv1.ListMappingsRequest{
				PageSize: -1, PageToken: "x",
				Filter: &namewardv1.MappingFilter{Domain: "a..b", Address: "10.0.0.0/99", Node: "x"},
			},
			[]string{"filter.address", "filter.domain", "filter.node", "page_size", "page_token"},
		},
		"a page of flow events": {
			&namewardv1.ListFlowEventsRequest{
				PageSize: -1, PageToken: "x",
				Filter: &namewardv1.FlowEventFilter{Domain: "a..b", Address: "10.0.0.0/99", Node: "x", Workload: "x", Policy: "policies/Bad name", Mode: 9},
			},
			[]string{"filter.address", "filter.domain", "filter.mode", "filter.node", "filter.policy", "filter.workload", "page_size", "page_token"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := v.Unary(t.Context(), test.request, nil, func(context.Context, any) (any, error) {
				t.Error("the request reached the handler")
				return nil, nil
			})
			got := slices.Sorted(maps.Keys(violations(t, err)))
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("fields (-want +got):\n%s", diff)
			}
		})
	}
}

func TestConstraintsOfEachRequest(t *testing.T) {
	s := start(t)
	for name, test := range map[string]struct {
		call func(ctx context.Context) error
		want string
	}{
		"create without a policy": {func(ctx context.Context) error {
			_, err := s.CreatePolicy(ctx, &namewardv1.CreatePolicyRequest{PolicyId: "a"})
			return err
		}, "policy"},
		"get without the collection": {func(ctx context.Context) error {
			_, err := s.GetPolicy(ctx, &namewardv1.GetPolicyRequest{Name: "web"})
			return err
		}, "name"},
		"negative page": {func(ctx context.Context) error {
			_, err := s.ListPolicies(ctx, &namewardv1.ListPoliciesRequest{PageSize: -1})
			return err
		}, "page_size"},
		"update of a bad name": {func(ctx context.Context) error {
			_, err := s.UpdatePolicy(ctx, &namewardv1.UpdatePolicyRequest{Policy: &namewardv1.Policy{Name: "Web"}})
			return err
		}, "policy.name"},
		"delete without a name": {func(ctx context.Context) error {
			_, err := s.DeletePolicy(ctx, &namewardv1.DeletePolicyRequest{})
			return err
		}, "name"},
		"watch from a bad token": {func(ctx context.Context) error {
			stream, err := s.WatchPolicies(ctx, &namewardv1.WatchPoliciesRequest{ResumeToken: "x"})
			if err != nil {
				return err
			}
			_, err = stream.Recv()
			return err
		}, "resume_token"},
	} {
		t.Run(name, func(t *testing.T) {
			got := violations(t, test.call(t.Context()))
			var fields []string
			for field := range got {
				fields = append(fields, field)
			}
			if diff := cmp.Diff([]string{test.want}, fields); diff != "" {
				t.Errorf("fields (-want +got):\n%s", diff)
			}
		})
	}
}

func TestUpdateWithoutAName(t *testing.T) {
	s := start(t)
	_, err := s.UpdatePolicy(t.Context(), &namewardv1.UpdatePolicyRequest{Policy: &namewardv1.Policy{Description: "x"}})
	if got := violations(t, err); got["policy.name"] == "" {
		t.Errorf("violations = %v, want one of policy.name", got)
	}
}

// Every one of very many faults is counted, but an answer has to fit into a header.
func TestAnswerToManyFaultsIsBounded(t *testing.T) {
	s := start(t)
	domains := make([]string, 50_000)
	for i := range domains {
		domains[i] = fmt.Sprintf("bad..%d", i)
	}
	bad := &namewardv1.Policy{Rules: []*namewardv1.Rule{{Action: namewardv1.Rule_ALLOW, Domains: domains}}}
	_, err := s.CreatePolicy(t.Context(), &namewardv1.CreatePolicyRequest{PolicyId: "web", Policy: bad})
	if got := violations(t, err); len(got) != 100 {
		t.Errorf("%d violations, want 100", len(got))
	}
	if message := status.Convert(err).Message(); !strings.Contains(message, "49999 more") {
		t.Errorf("message = %q, want the number of the others", message)
	}
}

func TestInternalErrorsStayInTheLog(t *testing.T) {
	s := start(t)
	s.breakStorage()
	_, err := s.CreatePolicy(t.Context(), &namewardv1.CreatePolicyRequest{PolicyId: "web", Policy: &namewardv1.Policy{}})
	wantCode(t, err, codes.Internal, "INTERNAL")
	if got := status.Convert(err).Message(); got != "internal error" {
		t.Errorf("message = %q, want a fixed one", got)
	}
	if got := s.logs.String(); !strings.Contains(got, "storage is closed") {
		t.Errorf("log = %q, want the cause", got)
	}
}

func TestDeadlineIsNotAnInternalError(t *testing.T) {
	s := start(t)
	ctx, cancel := withCancel(t)
	cancel()
	_, err := s.CreatePolicy(ctx, &namewardv1.CreatePolicyRequest{PolicyId: "web", Policy: &namewardv1.Policy{}})
	if status.Code(err) != codes.Canceled && !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v, want CANCELED", err)
	}
}

// refusingSync is a streaming service whose handler returns what Recv says.
type refusingSync struct {
	agentv1.UnimplementedSyncServiceServer
}

func (refusingSync) Sync(stream grpc.BidiStreamingServer[agentv1.SyncRequest, agentv1.SyncResponse]) error {
	for {
		if _, err := stream.Recv(); err != nil {
			return err
		}
		if err := stream.Send(&agentv1.SyncResponse{Resumed: true}); err != nil {
			return err
		}
	}
}

func TestEachMessageOfAStreamIsChecked(t *testing.T) {
	s := start(t)
	stream, err := s.sync.Sync(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	hello := &agentv1.Hello{Node: "lab", InstanceId: "x"}
	if err := stream.Send(&agentv1.SyncRequest{Message: &agentv1.SyncRequest_Hello{Hello: hello}}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatalf("Recv after a valid message: %v", err)
	}
	hello = &agentv1.Hello{Node: "-lab"}
	if err := stream.Send(&agentv1.SyncRequest{Message: &agentv1.SyncRequest_Hello{Hello: hello}}); err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	got := violations(t, err)
	if !strings.Contains(got["hello.node"], `"-lab"`) || got["hello.instance_id"] == "" || len(got) != 2 {
		t.Errorf("violations = %v, want hello.node with its value and hello.instance_id", got)
	}
}
