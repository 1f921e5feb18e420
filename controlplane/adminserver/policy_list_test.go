package adminserver_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/controlplane/store"
)

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
