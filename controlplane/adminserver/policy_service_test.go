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

func TestList(t *testing.T) {
	s := start(t)
	var want, got []string
	for i := range 7 {
		want = append(want, s.create(t, fmt.Sprintf("p%d", i), "").GetName())
	}
	token, pages := "", 0
	for first := true; first || token != ""; first = false {
		page, err := s.ListPolicies(t.Context(), &namewardv1.ListPoliciesRequest{PageSize: 3, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range page.GetPolicies() {
			got = append(got, p.GetName())
		}
		if pages++; pages == 1 {
			// A token stands for a place, not for a count.
			if _, err := s.DeletePolicy(t.Context(), &namewardv1.DeletePolicyRequest{Name: "policies/p0"}); err != nil {
				t.Fatal(err)
			}
		}
		token = page.GetNextPageToken()
	}
	if diff := cmp.Diff(want, got); diff != "" || pages != 3 {
		t.Errorf("%d pages, want 3 (-want +got):\n%s", pages, diff)
	}
	good, err := s.ListPolicies(t.Context(), &namewardv1.ListPoliciesRequest{PageSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"x", "cG9saWNpZXM", good.GetNextPageToken() + "A", good.GetNextPageToken()[1:]} {
		_, err := s.ListPolicies(t.Context(), &namewardv1.ListPoliciesRequest{PageToken: bad})
		if got := violations(t, err); !strings.Contains(got["page_token"], bad) {
			t.Errorf("token %q: %v, want a violation of page_token that names it", bad, got)
		}
	}
}

// A token goes on in the list that it was made for. Under another filter it would pass over what that one left out.
func TestTokensAreOfOneFilter(t *testing.T) {
	s := start(t)
	for i := range 3 {
		s.create(t, fmt.Sprintf("p%d", i), "")
	}
	enforced := &namewardv1.PolicyFilter{Mode: namewardv1.Policy_ENFORCE}
	first, err := s.ListPolicies(t.Context(), &namewardv1.ListPoliciesRequest{PageSize: 1, Filter: enforced})
	if err != nil || first.GetNextPageToken() == "" {
		t.Fatalf("got %v, %v, want a page with a token", first, err)
	}
	list := func(filter *namewardv1.PolicyFilter, token string) (*namewardv1.ListPoliciesResponse, error) {
		return s.ListPolicies(t.Context(), &namewardv1.ListPoliciesRequest{PageSize: 2, PageToken: token, Filter: filter})
	}
	if page, err := list(enforced, first.GetNextPageToken()); err != nil || len(page.GetPolicies()) != 2 {
		t.Errorf("got %v, %v, want the two that are left: a page may have another size", page, err)
	}
	for _, filter := range []*namewardv1.PolicyFilter{nil, {}, {Mode: namewardv1.Policy_AUDIT}, {Mode: namewardv1.Policy_ENFORCE, Domain: "a.example"}} {
		_, err := list(filter, first.GetNextPageToken())
		if got := violations(t, err); len(got) != 1 || got["page_token"] == "" {
			t.Errorf("filter %v: violations %v, want one of page_token", filter, got)
		}
	}
	// An empty filter is none.
	all, err := list(nil, "")
	if err != nil {
		t.Fatal(err)
	}
	if page, err := list(&namewardv1.PolicyFilter{}, all.GetNextPageToken()); err != nil || len(page.GetPolicies()) != 1 {
		t.Errorf("got %v, %v, want the one that is left", page, err)
	}
	// And a token of policies is none of domain sets.
	_, err = s.sets.ListDomainSets(t.Context(), &namewardv1.ListDomainSetsRequest{PageToken: all.GetNextPageToken()})
	if got := violations(t, err); len(got) != 1 || got["page_token"] == "" {
		t.Errorf("violations %v, want one of page_token", got)
	}
}

func TestPagesAreBoundedInBytes(t *testing.T) {
	s := start(t)
	for i := range 4 {
		domains := make([]string, 40_000)
		for j := range domains {
			domains[j] = fmt.Sprintf("host-%06d.example-%d.test", j, i)
		}
		p := &namewardv1.Policy{Mode: namewardv1.Policy_DISABLED, Rules: []*namewardv1.Rule{{Action: namewardv1.Rule_ALLOW, Domains: domains}}}
		if _, err := s.CreatePolicy(t.Context(), &namewardv1.CreatePolicyRequest{PolicyId: fmt.Sprintf("p%d", i), Policy: p}); err != nil {
			t.Fatal(err)
		}
	}
	page, err := s.ListPolicies(t.Context(), &namewardv1.ListPoliciesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(page.GetPolicies()); n == 0 || n == 4 || page.GetNextPageToken() == "" {
		t.Errorf("first page has %d policies and token %q, want some and a token", n, page.GetNextPageToken())
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

func TestPoliciesAreFiltered(t *testing.T) {
	s := start(t)
	id, err := node.ParseID("n")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.store.RegisterNode(t.Context(), store.Node{ID: id, Labels: map[string]string{"role": "web"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.sets.CreateDomainSet(t.Context(), &namewardv1.CreateDomainSetRequest{
		DomainSetId: "set", DomainSet: &namewardv1.DomainSet{Domains: []string{"*.set.example", "b*.example"}},
	}); err != nil {
		t.Fatal(err)
	}
	rule := func(r *namewardv1.Rule) []*namewardv1.Rule {
		r.Action = namewardv1.Rule_ALLOW
		return []*namewardv1.Rule{r}
	}
	selector := func(role string) *namewardv1.NodeSelector {
		return &namewardv1.NodeSelector{MatchLabels: map[string]string{"role": role}}
	}
	for id, p := range map[string]*namewardv1.Policy{
		"all": {Rules: rule(&namewardv1.Rule{Domains: []string{"a.example"}})},
		"db":  {NodeSelector: selector("db"), Rules: rule(&namewardv1.Rule{DomainSets: []string{"domainSets/set"}})},
		"off": {Mode: namewardv1.Policy_DISABLED, NodeSelector: selector("web"), Rules: rule(&namewardv1.Rule{Domains: []string{"*.example"}})},
		"web": {Mode: namewardv1.Policy_ENFORCE, NodeSelector: selector("web"), Rules: rule(&namewardv1.Rule{Cidrs: []string{"10.0.0.0/8"}})},
	} {
		if _, err := s.CreatePolicy(t.Context(), &namewardv1.CreatePolicyRequest{PolicyId: id, Policy: p}); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		filter *namewardv1.PolicyFilter
		want   string
	}{
		{&namewardv1.PolicyFilter{}, "all db off web"},
		{&namewardv1.PolicyFilter{DomainSet: "domainSets/set"}, "db"},
		{&namewardv1.PolicyFilter{DomainSet: "domainSets/none"}, ""},
		{&namewardv1.PolicyFilter{Node: "nodes/n"}, "all web"},
		{&namewardv1.PolicyFilter{Domain: "A.Example."}, "all off"},
		{&namewardv1.PolicyFilter{Domain: "x.set.example"}, "db off"},
		{&namewardv1.PolicyFilter{Domain: "bx.example"}, "db off"},
		{&namewardv1.PolicyFilter{Mode: namewardv1.Policy_ENFORCE}, "all db web"},
		{&namewardv1.PolicyFilter{Mode: namewardv1.Policy_DISABLED, Domain: "b.example"}, "off"},
	} {
		var got []string
		for request := (&namewardv1.ListPoliciesRequest{PageSize: 1, Filter: test.filter}); ; {
			page, err := s.ListPolicies(t.Context(), request)
			if err != nil {
				t.Fatalf("%v: %v", test.filter, err)
			}
			for _, p := range page.GetPolicies() {
				got = append(got, strings.TrimPrefix(p.GetName(), "policies/"))
			}
			if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
				break
			}
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%v: got %v, want %s", test.filter, got, test.want)
		}
	}
	_, err = s.ListPolicies(t.Context(), &namewardv1.ListPoliciesRequest{PageToken: "x", Filter: &namewardv1.PolicyFilter{Node: "nodes/nobody", Domain: "a..b"}})
	for _, field := range []string{"page_token", "filter.node", "filter.domain"} {
		if violations(t, err)[field] == "" {
			t.Errorf("%v does not name %s", err, field)
		}
	}
}
