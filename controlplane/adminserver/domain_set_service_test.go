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

func ignoreOutputOfSet() cmp.Option {
	return protocmp.IgnoreFields(&namewardv1.DomainSet{}, "etag", "create_time", "update_time")
}

// createSet makes domainSets/ID of domains.
func (s *server) createSet(t testing.TB, id string, domains ...string) *namewardv1.DomainSet {
	t.Helper()
	set, err := s.sets.CreateDomainSet(t.Context(), &namewardv1.CreateDomainSetRequest{
		DomainSetId: id, DomainSet: &namewardv1.DomainSet{Description: "d", Domains: domains},
	})
	if err != nil {
		t.Fatalf("CreateDomainSet(%s): %v", id, err)
	}
	return set
}

// createLargeSet makes a set whose domains no message has.
func (s *server) createLargeSet(t testing.TB, id string, count int) *namewardv1.DomainSet {
	t.Helper()
	var requests []*namewardv1.ReplaceDomainsRequest
	for part := range slices.Chunk(numbered(count), 50_000) {
		requests = append(requests, &namewardv1.ReplaceDomainsRequest{Name: "domainSets/" + id, AllowMissing: true, Domains: part})
	}
	response, err := s.replace(t, requests...)
	if err != nil {
		t.Fatal(err)
	}
	return response.GetDomainSet()
}

func numbered(count int) []string {
	domains := make([]string, count)
	for i := range domains {
		domains[i] = fmt.Sprintf("h%07d.example", i)
	}
	return domains
}

// replace sends the requests as one stream.
func (s *server) replace(t testing.TB, requests ...*namewardv1.ReplaceDomainsRequest) (*namewardv1.ReplaceDomainsResponse, error) {
	t.Helper()
	stream, err := s.sets.ReplaceDomains(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, request := range requests {
		if err := stream.Send(request); err != nil {
			break // the cause comes with the answer
		}
	}
	return stream.CloseAndRecv()
}

// usedBy makes policies that name the set.
func (s *server) usedBy(t testing.TB, set string, policies ...string) {
	t.Helper()
	for _, id := range policies {
		p := &namewardv1.Policy{Rules: []*namewardv1.Rule{{Action: namewardv1.Rule_ALLOW, DomainSets: []string{set}}}}
		if _, err := s.CreatePolicy(t.Context(), &namewardv1.CreatePolicyRequest{PolicyId: id, Policy: p}); err != nil {
			t.Fatal(err)
		}
	}
}

// domains lists all of a set.
func (s *server) domains(t testing.TB, name string, pageSize int32) (domains []string, pages int) {
	t.Helper()
	request := &namewardv1.ListDomainsRequest{Name: name, PageSize: pageSize}
	for {
		page, err := s.sets.ListDomains(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		domains, pages = append(domains, page.GetDomains()...), pages+1
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			return domains, pages
		}
	}
}

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

func TestAddAndRemoveDomains(t *testing.T) {
	s := start(t)
	made := s.createSet(t, "saas", "a.example", "b.example")
	ctx := t.Context()
	try, err := s.sets.AddDomains(ctx, &namewardv1.AddDomainsRequest{Name: made.GetName(), Domains: []string{"c.example"}, ValidateOnly: true})
	if err != nil || try.GetAddedCount() != 1 || try.GetDomainSet().GetDomainCount() != 3 {
		t.Errorf("AddDomains, validate only = %v, %v, want what would result", try, err)
	}
	added, err := s.sets.AddDomains(ctx, &namewardv1.AddDomainsRequest{Name: made.GetName(), Domains: []string{"B.example", "*.b.example", "*.b.example."}, Etag: made.GetEtag()})
	if err != nil || added.GetAddedCount() != 1 || added.GetDomainSet().GetDomainCount() != 3 || len(added.GetDomainSet().GetDomains()) != 0 {
		t.Errorf("AddDomains = %v, %v, want one added to two", added, err)
	}
	if added.GetDomainSet().GetEtag() == made.GetEtag() || !added.GetDomainSet().GetUpdateTime().AsTime().After(made.GetUpdateTime().AsTime()) {
		t.Errorf("AddDomains = %v, want another etag and time than %v", added, made)
	}
	again, err := s.sets.AddDomains(ctx, &namewardv1.AddDomainsRequest{Name: made.GetName(), Domains: []string{"b.example"}})
	if err != nil || again.GetAddedCount() != 0 || again.GetDomainSet().GetEtag() != added.GetDomainSet().GetEtag() {
		t.Errorf("AddDomains of what is there = %v, %v, want nothing changed", again, err)
	}
	removed, err := s.sets.RemoveDomains(ctx, &namewardv1.RemoveDomainsRequest{Name: made.GetName(), Domains: []string{"a.example", "x.b.example"}})
	if err != nil || removed.GetRemovedCount() != 1 || removed.GetDomainSet().GetDomainCount() != 2 {
		t.Errorf("RemoveDomains = %v, %v, want one removed", removed, err)
	}
	got, _ := s.domains(t, made.GetName(), 0)
	if diff := cmp.Diff([]string{"*.b.example", "b.example"}, got); diff != "" {
		t.Errorf("domains (-want +got):\n%s", diff)
	}
}

// Edits of one set at the same moment all hold.
func TestConcurrentEditsAllHold(t *testing.T) {
	s := start(t)
	set := s.createLargeSet(t, "large", 20_000)
	var group sync.WaitGroup
	const writers = 20
	for i := range writers {
		group.Go(func() {
			_, err := s.sets.AddDomains(t.Context(), &namewardv1.AddDomainsRequest{Name: set.GetName(), Domains: []string{fmt.Sprintf("new%d.example", i)}})
			if err != nil {
				t.Errorf("AddDomains: %v", err)
			}
			_, err = s.sets.UpdateDomainSet(t.Context(), &namewardv1.UpdateDomainSetRequest{DomainSet: &namewardv1.DomainSet{Name: set.GetName(), Description: fmt.Sprint(i)}})
			if err != nil {
				t.Errorf("UpdateDomainSet: %v", err)
			}
		})
	}
	group.Wait()
	got, err := s.sets.GetDomainSet(t.Context(), &namewardv1.GetDomainSetRequest{Name: set.GetName()})
	if err != nil || got.GetDomainCount() != 20_000+writers || got.GetDescription() == "" {
		t.Errorf("set = %v, %v, want every domain that was added and a description", got, err)
	}
}

func TestReplaceDomains(t *testing.T) {
	s := start(t)
	name := "domainSets/large"
	set := s.createLargeSet(t, "large", 30_000)
	if set.GetDomainCount() != 30_000 || len(set.GetDomains()) != 0 {
		t.Errorf("made %v, want 30,000 domains, none of them in the message", set)
	}
	next := numbered(30_010)[20:]
	requests := []*namewardv1.ReplaceDomainsRequest{{Name: name, Etag: set.GetEtag(), ValidateOnly: true}}
	for part := range slices.Chunk(next, 7_001) {
		requests = append(requests, &namewardv1.ReplaceDomainsRequest{Name: name, Domains: part})
	}
	for _, validateOnly := range []bool{true, false} {
		requests[0].ValidateOnly = validateOnly
		response, err := s.replace(t, requests...)
		if err != nil || response.GetAddedCount() != 10 || response.GetRemovedCount() != 20 || response.GetDomainSet().GetDomainCount() != 29_990 {
			t.Fatalf("ReplaceDomains, validate only %t = %v, %v, want 10 added and 20 removed", validateOnly, response, err)
		}
		got, pages := s.domains(t, name, 10_000)
		if want := map[bool][]string{true: numbered(30_000), false: next}[validateOnly]; !slices.Equal(got, want) || pages != 3 {
			t.Errorf("validate only %t: %d domains in %d pages, want %d in 3", validateOnly, len(got), pages, len(want))
		}
	}
	response, err := s.replace(t, &namewardv1.ReplaceDomainsRequest{Name: name})
	if err != nil || response.GetRemovedCount() != 29_990 || response.GetDomainSet().GetDomainCount() != 0 {
		t.Errorf("ReplaceDomains by nothing = %v, %v, want an empty set", response, err)
	}
}

func TestFaultsOfAStream(t *testing.T) {
	s := start(t)
	s.createSet(t, "saas", "a.example")
	_, err := s.replace(t,
		&namewardv1.ReplaceDomainsRequest{Domains: []string{"ok.example", "a..b"}},
		&namewardv1.ReplaceDomainsRequest{Domains: []string{"c d"}},
	)
	got := violations(t, err)
	if got["name"] == "" || !strings.Contains(got["domains[1]"], `"a..b"`) || !strings.Contains(got["domains[2]"], `"c d"`) || len(got) != 3 {
		t.Errorf("violations = %v, want those of all messages at once", got)
	}
	_, err = s.replace(t, &namewardv1.ReplaceDomainsRequest{Name: "domainSets/saas"}, &namewardv1.ReplaceDomainsRequest{Name: "domainSets/other"})
	if got := violations(t, err); !strings.Contains(got["name"], `"domainSets/other"`) {
		t.Errorf("violations = %v, want the other name", got)
	}
	for field, late := range map[string]*namewardv1.ReplaceDomainsRequest{
		"validate_only": {ValidateOnly: true}, "allow_missing": {AllowMissing: true}, "etag": {Etag: "x"},
	} {
		_, err = s.replace(t, &namewardv1.ReplaceDomainsRequest{Name: "domainSets/saas"}, late)
		if got := violations(t, err); got[field] == "" || len(got) != 1 {
			t.Errorf("violations = %v, want one of %s, which comes too late", got, field)
		}
	}
	_, err = s.replace(t)
	if got := violations(t, err); got["name"] == "" {
		t.Errorf("an empty stream: violations = %v, want one of the name", got)
	}
	bad := slices.Repeat([]string{"a..b"}, 1001)
	_, err = s.replace(t, &namewardv1.ReplaceDomainsRequest{Name: "domainSets/saas", Domains: bad}, &namewardv1.ReplaceDomainsRequest{Domains: bad})
	if message := status.Convert(err).Message(); !strings.Contains(message, "(and 1000 more)") {
		t.Errorf("message = %q, want it to end where faults are many", message)
	}
	if got, _ := s.domains(t, "domainSets/saas", 0); !slices.Equal(got, []string{"a.example"}) {
		t.Errorf("after all of it the set has %v", got)
	}
}

func TestAStreamThatBreaksChangesNothing(t *testing.T) {
	s := start(t)
	s.createSet(t, "saas", "a.example")
	ctx, cancel := withCancel(t)
	stream, err := s.sets.ReplaceDomains(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&namewardv1.ReplaceDomainsRequest{Name: "domainSets/saas", Domains: []string{"b.example"}}); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := stream.CloseAndRecv(); status.Code(err) != codes.Canceled {
		t.Errorf("error = %v, want CANCELED", err)
	}
	if got, _ := s.domains(t, "domainSets/saas", 0); !slices.Equal(got, []string{"a.example"}) {
		t.Errorf("the set has %v", got)
	}
}

// Who writes back what it read of a large set must not empty it.
func TestUpdateDoesNotEmptyWhatItDidNotShow(t *testing.T) {
	s := start(t)
	set := s.createLargeSet(t, "large", 10_001)
	ctx := t.Context()
	read, err := s.sets.GetDomainSet(ctx, &namewardv1.GetDomainSetRequest{Name: set.GetName()})
	if err != nil {
		t.Fatal(err)
	}
	read.Description = "new"
	for _, paths := range [][]string{{"*"}, {"domains"}} {
		_, err = s.sets.UpdateDomainSet(ctx, &namewardv1.UpdateDomainSetRequest{DomainSet: read, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths}})
		wantCode(t, err, codes.FailedPrecondition, "DOMAINS_NOT_INLINE")
		if message := status.Convert(err).Message(); !strings.Contains(message, set.GetName()) || !strings.Contains(message, "ReplaceDomains") {
			t.Errorf("message %q, want the set and what to do", message)
		}
	}
	got, err := s.sets.UpdateDomainSet(ctx, &namewardv1.UpdateDomainSetRequest{DomainSet: read})
	if err != nil || got.GetDescription() != "new" || got.GetDomainCount() != 10_001 {
		t.Errorf("update of the description = %v, %v, want the domains left alone", got, err)
	}
	got, err = s.sets.UpdateDomainSet(ctx, &namewardv1.UpdateDomainSetRequest{DomainSet: &namewardv1.DomainSet{Name: set.GetName(), Domains: []string{"a.example"}}})
	if err != nil || got.GetDomainCount() != 1 {
		t.Errorf("update of the domains = %v, %v, want the one", got, err)
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

func TestDomainsThatMatchAName(t *testing.T) {
	s := start(t)
	domains := []string{"*", "*.com", "*.example.com", "a.example.com", "a*.example.com", "b.example.com", "*.a.example.com", "www.*.com"}
	if _, err := s.sets.CreateDomainSet(t.Context(), &namewardv1.CreateDomainSetRequest{
		DomainSetId: "set", DomainSet: &namewardv1.DomainSet{Domains: domains},
	}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"A.example.com.":  "* *.com *.example.com a*.example.com a.example.com",
		"www.x.com":       "* *.com www.*.com",
		"x.a.example.com": "* *.a.example.com *.com *.example.com",
		"com":             "*",
	} {
		var got []string
		for request := (&namewardv1.ListDomainsRequest{Name: "domainSets/set", Matching: name, PageSize: 2}); ; {
			page, err := s.sets.ListDomains(t.Context(), request)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, page.GetDomains()...)
			if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
				break
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: got %v, want %s", name, got, want)
		}
	}
	_, err := s.sets.ListDomains(t.Context(), &namewardv1.ListDomainsRequest{Name: "domainSets/set", Matching: "*.com", PageSize: -1})
	if found := violations(t, err); found["matching"] == "" || found["page_size"] == "" {
		t.Errorf("violations = %v", found)
	}
}
