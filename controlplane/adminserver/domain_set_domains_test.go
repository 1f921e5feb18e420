package adminserver_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

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
