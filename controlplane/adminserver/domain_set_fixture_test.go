package adminserver_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
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
