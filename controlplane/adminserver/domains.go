package adminserver

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/nameward/nameward/api/domain"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/api/token"
	"github.com/nameward/nameward/controlplane/policy"
	"github.com/nameward/nameward/controlplane/store"
)

// AddDomains adds domains to a set.
func (s *DomainSetService) AddDomains(ctx context.Context, request *namewardv1.AddDomainsRequest) (*namewardv1.AddDomainsResponse, error) {
	domains, err := parseDomains(request.GetDomains(), 0)
	if err != nil {
		return nil, toStatus(s.log, err)
	}
	set, changed, err := s.edit(ctx, request.GetName(), request.GetEtag(), editsOf(domains, true), request.GetValidateOnly())
	if err != nil {
		return nil, toStatus(s.log, err)
	}
	return &namewardv1.AddDomainsResponse{DomainSet: set.Header(), AddedCount: changed}, nil
}

// RemoveDomains removes domains from a set.
func (s *DomainSetService) RemoveDomains(ctx context.Context, request *namewardv1.RemoveDomainsRequest) (*namewardv1.RemoveDomainsResponse, error) {
	domains, err := policy.ParseDomains(request.GetDomains(), 0)
	if err != nil {
		return nil, toStatus(s.log, err)
	}
	set, changed, err := s.edit(ctx, request.GetName(), request.GetEtag(), editsOf(domains, false), request.GetValidateOnly())
	if err != nil {
		return nil, toStatus(s.log, err)
	}
	return &namewardv1.RemoveDomainsResponse{DomainSet: set.Header(), RemovedCount: -changed}, nil
}

// editsOf says of domains whether a set shall have them.
func editsOf(domains []domain.Pattern, wanted bool) map[domain.Pattern]bool {
	edits := make(map[domain.Pattern]bool, len(domains))
	for _, pattern := range domains {
		edits[pattern] = wanted
	}
	return edits
}

// edit makes that a set has some domains, or has them not, and returns by how many it grew.
func (s *DomainSetService) edit(ctx context.Context, name, etag string, edits map[domain.Pattern]bool, validateOnly bool) (*policy.DomainSet, int32, error) {
	select {
	case s.editing <- struct{}{}:
	case <-ctx.Done():
		return nil, 0, context.Cause(ctx)
	}
	defer func() { <-s.editing }()
	var grown int
	set, err := winRaces(etag, false, func() (*policy.DomainSet, error) {
		current, err := s.store.DomainSet(name)
		if err != nil {
			return nil, err
		}
		if err := (store.Guard{Etag: etag}).Check(name, current.Etag); err != nil {
			return nil, err
		}
		next := *current
		next.DomainSet = current.Edited(edits)
		grown = len(next.Domains) - len(current.Domains)
		return s.put(ctx, &next, store.Guard{Etag: current.Etag, MustExist: true}, validateOnly)
	})
	return set, int32(grown), err //nolint:gosec // at most the domains of a request
}

// ListDomains lists the domains of a set.
func (s *DomainSetService) ListDomains(_ context.Context, request *namewardv1.ListDomainsRequest) (*namewardv1.ListDomainsResponse, error) {
	after, matching, err := parseListDomains(request)
	if err != nil {
		return nil, toStatus(s.log, err)
	}
	set, err := s.store.DomainSet(request.GetName())
	if err != nil {
		return nil, toStatus(s.log, err)
	}
	domains := set.Domains
	if !matching.IsZero() {
		domains = set.Matching(matching)
	}
	at, found := slices.BinarySearchFunc(domains, after, func(p domain.Pattern, text string) int { return strings.Compare(p.String(), text) })
	if found {
		at++
	}
	domains = domains[at:]
	size := min(len(domains), domainPageSize(request.GetPageSize()))
	response := &namewardv1.ListDomainsResponse{Domains: policy.Texts(domains[:size]), Etag: set.Etag}
	if size < len(domains) {
		response.NextPageToken = token.Page(request, response.GetDomains()[size-1])
	}
	return response, nil
}

// parseListDomains returns behind which domain the page begins, and the name that is to match.
func parseListDomains(request *namewardv1.ListDomainsRequest) (after string, matching domain.Name, err error) {
	after, err = parsePageToken(request)
	if text := request.GetMatching(); text != "" {
		var nameErr error
		if matching, nameErr = domain.ParseName(text); nameErr != nil {
			err = errors.Join(err, &ruleset.FieldError{Field: "matching", Value: text, Reason: nameErr.Error()})
		}
	}
	return after, matching, err
}
