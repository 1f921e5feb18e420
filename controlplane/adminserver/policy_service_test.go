package adminserver_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/controlplane/store"
)

func ignoreOutput() cmp.Option {
	return protocmp.IgnoreFields(&namewardv1.Policy{}, "etag", "create_time", "update_time")
}

func web() *namewardv1.Policy {
	return &namewardv1.Policy{
		Name: "policies/web", Description: "d", Priority: 7, Mode: namewardv1.Policy_AUDIT,
		NodeSelector: &namewardv1.NodeSelector{MatchLabels: map[string]string{"role": "web"}},
		Rules:        []*namewardv1.Rule{{Action: namewardv1.Rule_ALLOW, Domains: []string{"a.example", "*.b.example"}}},
	}
}

func createWeb(t *testing.T, s *server) *namewardv1.Policy {
	t.Helper()
	made, err := s.CreatePolicy(t.Context(), &namewardv1.CreatePolicyRequest{PolicyId: "web", Policy: web()})
	if err != nil {
		t.Fatalf("CreatePolicy: %v", err)
	}
	return made
}

func TestCreateAndGet(t *testing.T) {
	s := start(t)
	asked := web()
	asked.Name, asked.Etag, asked.CreateTime = "policies/other", "mine", &timestamppb.Timestamp{Seconds: 1}
	made, err := s.CreatePolicy(t.Context(), &namewardv1.CreatePolicyRequest{PolicyId: "web", Policy: asked})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(web(), made, protocmp.Transform(), ignoreOutput()); diff != "" {
		t.Errorf("made (-want +got):\n%s", diff)
	}
	if made.GetEtag() == "" || made.GetEtag() == "mine" || made.GetCreateTime().GetSeconds() < 1000 {
		t.Errorf("made has etag %q and time %v, want the server's", made.GetEtag(), made.GetCreateTime())
	}
	got, err := s.GetPolicy(t.Context(), &namewardv1.GetPolicyRequest{Name: "policies/web"})
	if diff := cmp.Diff(made, got, protocmp.Transform()); diff != "" || err != nil {
		t.Errorf("GetPolicy: %v (-want +got):\n%s", err, diff)
	}
}

func TestErrors(t *testing.T) {
	s := start(t)
	createWeb(t, s)
	_, err := s.CreatePolicy(t.Context(), &namewardv1.CreatePolicyRequest{PolicyId: "web", Policy: web()})
	wantCode(t, err, codes.AlreadyExists, "ALREADY_EXISTS")
	_, err = s.GetPolicy(t.Context(), &namewardv1.GetPolicyRequest{Name: "policies/none"})
	wantCode(t, err, codes.NotFound, "NOT_FOUND")
	if !strings.Contains(status.Convert(err).Message(), "policies/none") {
		t.Errorf("message %q does not name the policy", status.Convert(err).Message())
	}
	_, err = s.DeletePolicy(t.Context(), &namewardv1.DeletePolicyRequest{Name: "policies/none"})
	wantCode(t, err, codes.NotFound, "NOT_FOUND")
	_, err = s.UpdatePolicy(t.Context(), &namewardv1.UpdatePolicyRequest{Policy: &namewardv1.Policy{Name: "policies/none"}})
	wantCode(t, err, codes.NotFound, "NOT_FOUND")
	_, err = s.DeletePolicy(t.Context(), &namewardv1.DeletePolicyRequest{Name: "policies/web", Etag: "stale"})
	wantCode(t, err, codes.Aborted, "STALE_ETAG")
	_, err = s.UpdatePolicy(t.Context(), &namewardv1.UpdatePolicyRequest{Policy: &namewardv1.Policy{Name: "policies/web", Etag: "stale"}})
	wantCode(t, err, codes.Aborted, "STALE_ETAG")
	request := &namewardv1.UpdatePolicyRequest{Policy: &namewardv1.Policy{Name: "policies/gone", Etag: "x"}, AllowMissing: true}
	_, err = s.UpdatePolicy(t.Context(), request)
	wantCode(t, err, codes.Aborted, "STALE_ETAG")
}

func TestUpdateMask(t *testing.T) {
	changes := &namewardv1.Policy{
		Name: "policies/web", Description: "new", Etag: "", CreateTime: &timestamppb.Timestamp{Seconds: 1},
		NodeSelector: &namewardv1.NodeSelector{MatchLabels: map[string]string{"zone": "a"}},
	}
	edited := func(edit func(*namewardv1.Policy)) *namewardv1.Policy {
		p := web()
		edit(p)
		return p
	}
	for name, test := range map[string]struct {
		paths []string
		want  *namewardv1.Policy
	}{
		"absent means what is set": {nil, edited(func(p *namewardv1.Policy) {
			p.Description, p.NodeSelector = "new", changes.GetNodeSelector()
		})},
		"star means all": {[]string{"*"}, &namewardv1.Policy{
			Name: "policies/web", Description: "new", NodeSelector: changes.GetNodeSelector(),
		}},
		"one field":                   {[]string{"description"}, edited(func(p *namewardv1.Policy) { p.Description = "new" })},
		"a field that is unset":       {[]string{"rules", "mode"}, edited(func(p *namewardv1.Policy) { p.Rules, p.Mode = nil, 0 })},
		"a nested field":              {[]string{"node_selector.match_labels"}, edited(func(p *namewardv1.Policy) { p.NodeSelector = changes.GetNodeSelector() })},
		"output only changes nothing": {[]string{"create_time", "etag", "name", "update_time"}, web()},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			before := createWeb(t, s)
			request := &namewardv1.UpdatePolicyRequest{Policy: changes}
			if test.paths != nil {
				request.UpdateMask = &fieldmaskpb.FieldMask{Paths: test.paths}
			}
			got, err := s.UpdatePolicy(t.Context(), request)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got, protocmp.Transform(), ignoreOutput()); diff != "" {
				t.Errorf("updated (-want +got):\n%s", diff)
			}
			if got.GetCreateTime().AsTime() != before.GetCreateTime().AsTime() {
				t.Errorf("creation moved from %v to %v", before.GetCreateTime(), got.GetCreateTime())
			}
			unchanged := cmp.Diff(web(), got, protocmp.Transform(), ignoreOutput()) == ""
			if same := got.GetEtag() == before.GetEtag(); same != unchanged {
				t.Errorf("etag is the same: %t, content is the same: %t", same, unchanged)
			}
		})
	}
}

func TestUnknownMaskPaths(t *testing.T) {
	s := start(t)
	createWeb(t, s)
	_, err := s.UpdatePolicy(t.Context(), &namewardv1.UpdatePolicyRequest{
		Policy:     &namewardv1.Policy{Name: "policies/web", Rules: []*namewardv1.Rule{{Action: namewardv1.Rule_ALLOW, Domains: []string{"a..b"}}}},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"mode", "rulez", "rules.domains", "node_selector.match_labels.role", ""}},
	})
	got := violations(t, err)
	for field, value := range map[string]string{
		"update_mask.paths[1]": `"rulez"`, "update_mask.paths[2]": `"rules.domains"`,
		"update_mask.paths[3]": `"node_selector.match_labels.role"`, "update_mask.paths[4]": `""`, "policy.rules[0].domains[0]": `"a..b"`,
	} {
		if !strings.Contains(got[field], value) {
			t.Errorf("%s: %q, want a violation that names %s", field, got[field], value)
		}
	}
	if len(got) != 5 {
		t.Errorf("%d violations %v, want 5", len(got), got)
	}
}

func TestAllowMissingMakesThePolicyWhole(t *testing.T) {
	s := start(t)
	got, err := s.UpdatePolicy(t.Context(), &namewardv1.UpdatePolicyRequest{
		Policy: web(), UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"mode"}}, AllowMissing: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(web(), got, protocmp.Transform(), ignoreOutput()); diff != "" {
		t.Errorf("made (-want +got):\n%s", diff)
	}
}

func TestValidateOnlyStoresNothing(t *testing.T) {
	s := start(t)
	createWeb(t, s)
	before := s.store.Revision()
	made, err := s.CreatePolicy(t.Context(), &namewardv1.CreatePolicyRequest{PolicyId: "new", Policy: web(), ValidateOnly: true})
	if err != nil || made.GetName() != "policies/new" {
		t.Errorf("CreatePolicy = %v, %v, want what would be made", made, err)
	}
	changed, err := s.UpdatePolicy(t.Context(), &namewardv1.UpdatePolicyRequest{
		Policy: &namewardv1.Policy{Name: "policies/web", Description: "new"}, ValidateOnly: true,
	})
	if err != nil || changed.GetDescription() != "new" || changed.GetPriority() != 7 {
		t.Errorf("UpdatePolicy = %v, %v, want the merged policy", changed, err)
	}
	if _, err := s.DeletePolicy(t.Context(), &namewardv1.DeletePolicyRequest{Name: "policies/web", ValidateOnly: true}); err != nil {
		t.Errorf("DeletePolicy: %v", err)
	}
	_, err = s.CreatePolicy(t.Context(), &namewardv1.CreatePolicyRequest{PolicyId: "web", Policy: web(), ValidateOnly: true})
	wantCode(t, err, codes.AlreadyExists, "ALREADY_EXISTS")
	_, err = s.DeletePolicy(t.Context(), &namewardv1.DeletePolicyRequest{Name: "policies/none", ValidateOnly: true})
	wantCode(t, err, codes.NotFound, "NOT_FOUND")
	if after := s.store.Revision(); after != before {
		t.Errorf("revision went from %d to %d", before, after)
	}
}

func TestDelete(t *testing.T) {
	s := start(t)
	made := createWeb(t, s)
	if _, err := s.DeletePolicy(t.Context(), &namewardv1.DeletePolicyRequest{Name: made.GetName(), Etag: made.GetEtag()}); err != nil {
		t.Fatal(err)
	}
	_, err := s.GetPolicy(t.Context(), &namewardv1.GetPolicyRequest{Name: made.GetName()})
	wantCode(t, err, codes.NotFound, "NOT_FOUND")
	if _, err := s.DeletePolicy(t.Context(), &namewardv1.DeletePolicyRequest{Name: made.GetName(), AllowMissing: true}); err != nil {
		t.Errorf("DeletePolicy that allows missing: %v", err)
	}
}

// Two read the same etag. One update wins, the other hears that it is stale.
func TestEtagRace(t *testing.T) {
	s := start(t)
	current := createWeb(t, s)
	for round := range 20 {
		results := make([]*namewardv1.Policy, 2)
		errs := make([]error, 2)
		var group sync.WaitGroup
		for i := range results {
			group.Go(func() {
				results[i], errs[i] = s.UpdatePolicy(t.Context(), &namewardv1.UpdatePolicyRequest{Policy: &namewardv1.Policy{
					Name: "policies/web", Etag: current.GetEtag(), Description: fmt.Sprintf("%d/%d", round, i),
				}})
			})
		}
		group.Wait()
		winner := 0
		if errs[0] != nil {
			winner = 1
		}
		if errs[winner] != nil {
			t.Fatalf("round %d: nobody won: %v", round, errs)
		}
		wantCode(t, errs[1-winner], codes.Aborted, "STALE_ETAG")
		current = results[winner]
	}
}

// Updates of different fields without an etag never undo each other.
func TestConcurrentUpdatesOfDifferentFieldsAllHold(t *testing.T) {
	s := start(t)
	createWeb(t, s)
	var group sync.WaitGroup
	update := func(p *namewardv1.Policy) {
		p.Name = "policies/web"
		if _, err := s.UpdatePolicy(t.Context(), &namewardv1.UpdatePolicyRequest{Policy: p}); err != nil {
			t.Errorf("UpdatePolicy: %v", err)
		}
	}
	const rounds = 50
	group.Go(func() {
		for i := range rounds {
			update(&namewardv1.Policy{Description: fmt.Sprint(i)})
		}
	})
	group.Go(func() {
		for i := range rounds {
			update(&namewardv1.Policy{Priority: int32(i) + 1})
		}
	})
	group.Wait()
	got, err := s.GetPolicy(t.Context(), &namewardv1.GetPolicyRequest{Name: "policies/web"})
	if err != nil || got.GetDescription() != fmt.Sprint(rounds-1) || got.GetPriority() != rounds {
		t.Errorf("policy = %v, %v, want the last of both", got, err)
	}
}

func TestWhatNoNodeCouldHoldIsRefused(t *testing.T) {
	s := start(t)
	id, err := node.ParseID("lab")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.store.RegisterNode(t.Context(), store.Node{ID: id, Labels: map[string]string{"role": "web"}}); err != nil {
		t.Fatal(err)
	}
	for i, want := range []codes.Code{codes.OK, codes.ResourceExhausted} {
		domains := make([]string, 70_000)
		for j := range domains {
			domains[j] = fmt.Sprintf("%d.%d.test", j, i)
		}
		p := &namewardv1.Policy{Rules: []*namewardv1.Rule{{Action: namewardv1.Rule_ALLOW, Domains: domains}}}
		_, err := s.CreatePolicy(t.Context(), &namewardv1.CreatePolicyRequest{PolicyId: fmt.Sprintf("p%d", i), Policy: p})
		if status.Code(err) != want {
			t.Fatalf("policy %d: %v, want %v", i, err, want)
		}
		if err != nil {
			wantCode(t, err, want, "CAPACITY_EXCEEDED")
		}
	}
}

// BenchmarkUpdatePolicy is the cost of a durable write over gRPC in a large fleet.
func BenchmarkUpdatePolicy(b *testing.B) {
	s := start(b)
	for i := range 1000 {
		s.create(b, fmt.Sprintf("p%d", i), "")
		id, err := node.ParseID(fmt.Sprintf("n%d", i))
		if err != nil {
			b.Fatal(err)
		}
		if err := s.store.RegisterNode(b.Context(), store.Node{ID: id, Labels: map[string]string{"n": fmt.Sprint(i % 50)}}); err != nil {
			b.Fatal(err)
		}
	}
	i := 0
	for b.Loop() {
		i++
		request := &namewardv1.UpdatePolicyRequest{Policy: &namewardv1.Policy{Name: "policies/p7", Description: fmt.Sprint(i)}}
		if _, err := s.UpdatePolicy(b.Context(), request); err != nil {
			b.Fatal(err)
		}
	}
}
