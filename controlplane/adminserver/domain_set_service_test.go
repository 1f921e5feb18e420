package adminserver_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/controlplane/store"
)

func TestCreateAndGetDomainSet(t *testing.T) {
	s := start(t)
	made, err := s.sets.CreateDomainSet(t.Context(), &namewardv1.CreateDomainSetRequest{DomainSetId: "saas", DomainSet: &namewardv1.DomainSet{
		Name: "domainSets/other", Description: "d", Etag: "mine", DomainCount: 99, CreateTime: &timestamppb.Timestamp{Seconds: 1},
		Domains: []string{"b.Example.", "*.a.example", "b\u00fccher.example", "b.example"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := &namewardv1.DomainSet{
		Name: "domainSets/saas", Description: "d", DomainCount: 3, Domains: []string{"*.a.example", "b.example", "xn--bcher-kva.example"},
	}
	if diff := cmp.Diff(want, made, protocmp.Transform(), ignoreOutputOfSet()); diff != "" {
		t.Errorf("made (-want +got):\n%s", diff)
	}
	if made.GetEtag() == "" || made.GetEtag() == "mine" || made.GetCreateTime().GetSeconds() < 1000 {
		t.Errorf("made has etag %q and time %v, want the server's", made.GetEtag(), made.GetCreateTime())
	}
	got, err := s.sets.GetDomainSet(t.Context(), &namewardv1.GetDomainSetRequest{Name: "domainSets/saas"})
	if diff := cmp.Diff(made, got, protocmp.Transform()); diff != "" || err != nil {
		t.Errorf("GetDomainSet: %v (-want +got):\n%s", err, diff)
	}
	// What would be made has no etag and no times yet, least of all the client's.
	would, err := s.sets.CreateDomainSet(t.Context(), &namewardv1.CreateDomainSetRequest{DomainSetId: "next", ValidateOnly: true, DomainSet: &namewardv1.DomainSet{
		Etag: "mine", CreateTime: &timestamppb.Timestamp{Seconds: 1}, UpdateTime: &timestamppb.Timestamp{Seconds: 1},
	}})
	if err != nil || would.GetEtag() != "" || would.GetCreateTime() != nil || would.GetUpdateTime() != nil {
		t.Errorf("would make %v, %v, want nothing that only the server sets", would, err)
	}
}

func TestErrorsOfDomainSets(t *testing.T) {
	s := start(t)
	made := s.createSet(t, "saas", "a.example")
	ctx := t.Context()
	stale, none := "stale", "domainSets/none"
	for name, test := range map[string]struct {
		call   func() error
		code   codes.Code
		reason string
	}{
		"create what exists": {func() error {
			_, err := s.sets.CreateDomainSet(ctx, &namewardv1.CreateDomainSetRequest{DomainSetId: "saas", DomainSet: &namewardv1.DomainSet{}})
			return err
		}, codes.AlreadyExists, "ALREADY_EXISTS"},
		"get nothing": {func() error {
			_, err := s.sets.GetDomainSet(ctx, &namewardv1.GetDomainSetRequest{Name: none})
			return err
		}, codes.NotFound, "NOT_FOUND"},
		"update nothing": {func() error {
			_, err := s.sets.UpdateDomainSet(ctx, &namewardv1.UpdateDomainSetRequest{DomainSet: &namewardv1.DomainSet{Name: none}})
			return err
		}, codes.NotFound, "NOT_FOUND"},
		"update with a stale etag": {func() error {
			_, err := s.sets.UpdateDomainSet(ctx, &namewardv1.UpdateDomainSetRequest{DomainSet: &namewardv1.DomainSet{Name: made.GetName(), Etag: stale}})
			return err
		}, codes.Aborted, "STALE_ETAG"},
		"delete nothing": {func() error {
			_, err := s.sets.DeleteDomainSet(ctx, &namewardv1.DeleteDomainSetRequest{Name: none})
			return err
		}, codes.NotFound, "NOT_FOUND"},
		"delete with a stale etag": {func() error {
			_, err := s.sets.DeleteDomainSet(ctx, &namewardv1.DeleteDomainSetRequest{Name: made.GetName(), Etag: stale})
			return err
		}, codes.Aborted, "STALE_ETAG"},
		"add to nothing": {func() error {
			_, err := s.sets.AddDomains(ctx, &namewardv1.AddDomainsRequest{Name: none, Domains: []string{"a.example"}})
			return err
		}, codes.NotFound, "NOT_FOUND"},
		"add with a stale etag": {func() error {
			_, err := s.sets.AddDomains(ctx, &namewardv1.AddDomainsRequest{Name: made.GetName(), Domains: []string{"a.example"}, Etag: stale})
			return err
		}, codes.Aborted, "STALE_ETAG"},
		"remove with a stale etag": {func() error {
			_, err := s.sets.RemoveDomains(ctx, &namewardv1.RemoveDomainsRequest{Name: made.GetName(), Domains: []string{"a.example"}, Etag: stale})
			return err
		}, codes.Aborted, "STALE_ETAG"},
		"replace nothing": {func() error {
			_, err := s.replace(t, &namewardv1.ReplaceDomainsRequest{Name: none})
			return err
		}, codes.NotFound, "NOT_FOUND"},
		"replace with a stale etag": {func() error {
			_, err := s.replace(t, &namewardv1.ReplaceDomainsRequest{Name: made.GetName(), Etag: stale})
			return err
		}, codes.Aborted, "STALE_ETAG"},
		"make with an etag": {func() error {
			_, err := s.replace(t, &namewardv1.ReplaceDomainsRequest{Name: none, Etag: stale, AllowMissing: true})
			return err
		}, codes.Aborted, "STALE_ETAG"},
		"list the domains of nothing": {func() error {
			_, err := s.sets.ListDomains(ctx, &namewardv1.ListDomainsRequest{Name: none})
			return err
		}, codes.NotFound, "NOT_FOUND"},
	} {
		t.Run(name, func(t *testing.T) { wantCode(t, test.call(), test.code, test.reason) })
	}
	if got, err := s.sets.GetDomainSet(ctx, &namewardv1.GetDomainSetRequest{Name: made.GetName()}); err != nil || got.GetEtag() != made.GetEtag() {
		t.Errorf("after all of it: %v, %v, want the set as it was", got, err)
	}
}

func TestUpdateMaskOfDomainSet(t *testing.T) {
	before := func(edit func(*namewardv1.DomainSet)) *namewardv1.DomainSet {
		set := &namewardv1.DomainSet{Name: "domainSets/saas", Description: "d", Domains: []string{"a.example"}, DomainCount: 1}
		edit(set)
		return set
	}
	changes := &namewardv1.DomainSet{Name: "domainSets/saas", Domains: []string{"b.example"}, DomainCount: 7}
	for name, test := range map[string]struct {
		changes *namewardv1.DomainSet
		paths   []string
		want    *namewardv1.DomainSet
	}{
		"absent means what is set":    {changes, nil, before(func(s *namewardv1.DomainSet) { s.Domains = changes.GetDomains() })},
		"absent, nothing set":         {&namewardv1.DomainSet{Name: "domainSets/saas"}, nil, before(func(*namewardv1.DomainSet) {})},
		"star means all":              {changes, []string{"*"}, before(func(s *namewardv1.DomainSet) { s.Domains, s.Description = changes.GetDomains(), "" })},
		"one field":                   {changes, []string{"description"}, before(func(s *namewardv1.DomainSet) { s.Description = "" })},
		"domains, none of them":       {&namewardv1.DomainSet{Name: "domainSets/saas"}, []string{"domains"}, before(func(s *namewardv1.DomainSet) { s.Domains, s.DomainCount = nil, 0 })},
		"output only changes nothing": {changes, []string{"create_time", "etag", "name", "update_time", "domain_count"}, before(func(*namewardv1.DomainSet) {})},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			made := s.createSet(t, "saas", "a.example")
			request := &namewardv1.UpdateDomainSetRequest{DomainSet: test.changes}
			if test.paths != nil {
				request.UpdateMask = &fieldmaskpb.FieldMask{Paths: test.paths}
			}
			got, err := s.sets.UpdateDomainSet(t.Context(), request)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got, protocmp.Transform(), ignoreOutputOfSet()); diff != "" {
				t.Errorf("updated (-want +got):\n%s", diff)
			}
			unchanged := cmp.Diff(made, got, protocmp.Transform(), ignoreOutputOfSet()) == ""
			if same := got.GetEtag() == made.GetEtag(); same != unchanged {
				t.Errorf("etag is the same: %t, content is the same: %t", same, unchanged)
			}
		})
	}
}

func TestUnknownMaskPathsOfDomainSet(t *testing.T) {
	s := start(t)
	s.createSet(t, "saas")
	_, err := s.sets.UpdateDomainSet(t.Context(), &namewardv1.UpdateDomainSetRequest{
		DomainSet:  &namewardv1.DomainSet{Name: "domainSets/saas", Domains: []string{"a..b"}},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"domain"}},
	})
	got := violations(t, err)
	if !strings.Contains(got["update_mask.paths[0]"], `"domain"`) || !strings.Contains(got["domain_set.domains[0]"], `"a..b"`) || len(got) != 2 {
		t.Errorf("violations = %v, want the path and the domain", got)
	}
}

func TestListDomainSetsAndDomains(t *testing.T) {
	s := start(t)
	var want []string
	for i := range 5 {
		want = append(want, s.createSet(t, fmt.Sprintf("s%d", i), "a.example").GetName())
	}
	var got []string
	request := &namewardv1.ListDomainSetsRequest{PageSize: 2}
	for first := true; first || request.GetPageToken() != ""; first = false {
		page, err := s.sets.ListDomainSets(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		for _, set := range page.GetDomainSets() {
			if len(set.GetDomains()) != 1 {
				t.Errorf("%v lacks its domain", set)
			}
			got = append(got, set.GetName())
		}
		request.PageToken = page.GetNextPageToken()
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	set := s.createSet(t, "many", numbered(25)...)
	domains, pages := s.domains(t, set.GetName(), 10)
	if !slices.Equal(domains, numbered(25)) || pages != 3 {
		t.Errorf("%d pages of %v", pages, domains)
	}
	// A page's token is one of this set.
	page, err := s.sets.ListDomains(t.Context(), &namewardv1.ListDomainsRequest{Name: set.GetName(), PageSize: 1})
	if err != nil || page.GetEtag() != set.GetEtag() {
		t.Fatalf("page %v, %v, want the etag %s", page, err, set.GetEtag())
	}
	_, err = s.sets.ListDomains(t.Context(), &namewardv1.ListDomainsRequest{Name: "domainSets/s0", PageToken: page.GetNextPageToken()})
	if got := violations(t, err); got["page_token"] == "" {
		t.Errorf("violations = %v, want one of page_token", got)
	}
}

func TestAPolicyNamesOnlyDomainSetsThatExist(t *testing.T) {
	s := start(t)
	s.createSet(t, "there", "a.example")
	p := &namewardv1.Policy{Rules: []*namewardv1.Rule{
		{Action: namewardv1.Rule_ALLOW, DomainSets: []string{"domainSets/there", "domainSets/none"}},
		{Action: namewardv1.Rule_ALLOW, DomainSets: []string{"domainSets/gone"}},
	}}
	for _, validateOnly := range []bool{true, false} {
		_, err := s.CreatePolicy(t.Context(), &namewardv1.CreatePolicyRequest{PolicyId: "web", Policy: p, ValidateOnly: validateOnly})
		wantCode(t, err, codes.FailedPrecondition, "MISSING")
		var fields, subjects []string
		for _, detail := range status.Convert(err).Details() {
			switch detail := detail.(type) {
			case *errdetails.BadRequest:
				for _, v := range detail.GetFieldViolations() {
					fields = append(fields, v.GetField()+" "+v.GetDescription())
				}
			case *errdetails.PreconditionFailure:
				for _, v := range detail.GetViolations() {
					subjects = append(subjects, v.GetType()+" "+v.GetSubject())
				}
			}
		}
		wantFields := []string{
			`policy.rules[0].domain_sets[1] "domainSets/none": does not exist`, `policy.rules[1].domain_sets[0] "domainSets/gone": does not exist`,
		}
		if diff := cmp.Diff(wantFields, fields); diff != "" {
			t.Errorf("fields (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"MISSING domainSets/none", "MISSING domainSets/gone"}, subjects); diff != "" {
			t.Errorf("subjects (-want +got):\n%s", diff)
		}
		want := `policies/web: domainSets/none does not exist (policy.rules[0].domain_sets[1]) (and 1 more)`
		if got := status.Convert(err).Message(); got != want {
			t.Errorf("message = %q, want %q", got, want)
		}
	}
	s.usedBy(t, "domainSets/there", "web")
	_, err := s.UpdatePolicy(t.Context(), &namewardv1.UpdatePolicyRequest{Policy: &namewardv1.Policy{Name: "policies/web", Rules: p.GetRules()}})
	wantCode(t, err, codes.FailedPrecondition, "MISSING")
}

func TestADomainSetInUseIsNotDeleted(t *testing.T) {
	s := start(t)
	set := s.createSet(t, "saas", "a.example")
	s.usedBy(t, set.GetName(), "one", "two")
	for _, validateOnly := range []bool{true, false} {
		_, err := s.sets.DeleteDomainSet(t.Context(), &namewardv1.DeleteDomainSetRequest{Name: set.GetName(), ValidateOnly: validateOnly})
		wantCode(t, err, codes.FailedPrecondition, "IN_USE")
		var got []string
		for _, detail := range status.Convert(err).Details() {
			if failure, ok := detail.(*errdetails.PreconditionFailure); ok {
				for _, v := range failure.GetViolations() {
					got = append(got, v.GetType()+" "+v.GetSubject()+" "+v.GetDescription())
				}
			}
		}
		want := []string{
			"IN_USE policies/one names it in rules[0].domain_sets[0]",
			"IN_USE policies/two names it in rules[0].domain_sets[0]",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("violations (-want +got):\n%s", diff)
		}
		if got, want := status.Convert(err).Message(), "domainSets/saas: policies/one names it in rules[0].domain_sets[0] (and 1 more)"; got != want {
			t.Errorf("message = %q, want %q", got, want)
		}
	}
	for _, id := range []string{"policies/one", "policies/two"} {
		if _, err := s.DeletePolicy(t.Context(), &namewardv1.DeletePolicyRequest{Name: id}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.sets.DeleteDomainSet(t.Context(), &namewardv1.DeleteDomainSetRequest{Name: set.GetName(), Etag: set.GetEtag()}); err != nil {
		t.Errorf("DeleteDomainSet that nobody names: %v", err)
	}
	if _, err := s.sets.DeleteDomainSet(t.Context(), &namewardv1.DeleteDomainSetRequest{Name: set.GetName(), AllowMissing: true}); err != nil {
		t.Errorf("DeleteDomainSet that allows missing: %v", err)
	}
}

// Of a policy that names a set and the deletion of the set, at the same moment, one fails.
func TestNamedOrDeleted(t *testing.T) {
	s := start(t)
	for round := range 30 {
		id := fmt.Sprintf("s%d", round)
		set := s.createSet(t, id)
		var group sync.WaitGroup
		var named, deleted error
		group.Go(func() {
			p := &namewardv1.Policy{Rules: []*namewardv1.Rule{{Action: namewardv1.Rule_DENY, DomainSets: []string{set.GetName()}}}}
			_, named = s.CreatePolicy(t.Context(), &namewardv1.CreatePolicyRequest{PolicyId: id, Policy: p})
		})
		group.Go(func() {
			_, deleted = s.sets.DeleteDomainSet(t.Context(), &namewardv1.DeleteDomainSetRequest{Name: set.GetName()})
		})
		group.Wait()
		if (named == nil) == (deleted == nil) {
			t.Fatalf("round %d: the policy: %v, the deletion: %v, want one of both refused", round, named, deleted)
		}
	}
}

func TestASetThatNoNodeCouldHoldIsRefused(t *testing.T) {
	s := start(t)
	id, err := node.ParseID("lab")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.store.RegisterNode(t.Context(), store.Node{ID: id, Labels: map[string]string{"role": "web"}}); err != nil {
		t.Fatal(err)
	}
	set := s.createLargeSet(t, "large", 131_072)
	s.usedBy(t, set.GetName(), "web")
	add := &namewardv1.AddDomainsRequest{Name: set.GetName(), Domains: []string{"one.more.example"}}
	_, err = s.sets.AddDomains(t.Context(), add)
	wantCode(t, err, codes.ResourceExhausted, "CAPACITY_EXCEEDED")
	if message := status.Convert(err).Message(); !strings.Contains(message, "131073 domain patterns: more than 131072") || !strings.Contains(message, set.GetName()) {
		t.Errorf("message = %q, want the set and the limit", message)
	}
	if _, err := s.sets.RemoveDomains(t.Context(), &namewardv1.RemoveDomainsRequest{Name: set.GetName(), Domains: numbered(1)}); err != nil {
		t.Errorf("RemoveDomains: %v", err)
	}
	if _, err := s.sets.AddDomains(t.Context(), add); err != nil {
		t.Errorf("AddDomains that fit: %v", err)
	}
	// A set that no policy names may be larger, but none may name it.
	huge := s.createLargeSet(t, "huge", 140_000)
	p := &namewardv1.Policy{Rules: []*namewardv1.Rule{{Action: namewardv1.Rule_ALLOW, DomainSets: []string{huge.GetName()}}}}
	_, err = s.CreatePolicy(t.Context(), &namewardv1.CreatePolicyRequest{PolicyId: "huge", Policy: p})
	wantCode(t, err, codes.ResourceExhausted, "CAPACITY_EXCEEDED")
}

func TestNoSetIsLargerThanAnyMayBe(t *testing.T) {
	s := start(t)
	var requests []*namewardv1.ReplaceDomainsRequest
	all := numbered(1<<20 + 1)
	for part := range slices.Chunk(all, 100_000) {
		requests = append(requests, &namewardv1.ReplaceDomainsRequest{Name: "domainSets/x", AllowMissing: true, Domains: part})
	}
	_, err := s.replace(t, requests...)
	wantCode(t, err, codes.ResourceExhausted, "TOO_MANY_DOMAINS")
	if message := status.Convert(err).Message(); !strings.Contains(message, "domainSets/x") || !strings.Contains(message, "1048576") {
		t.Errorf("message = %q, want the set and the limit", message)
	}
}
