package adminserver

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	"google.golang.org/grpc"

	"github.com/nameward/nameward/api/domain"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/controlplane/policy"
	"github.com/nameward/nameward/controlplane/store"
)

// maxStreamFaults is how many faults of a stream are gathered before it is answered.
const maxStreamFaults = 1000

// AddDomains adds domains to a set.
func (s *DomainSetService) AddDomains(ctx context.Context, request *namewardv1.AddDomainsRequest) (*namewardv1.AddDomainsResponse, error) {
	edits, err := editsOf(request.GetDomains(), true)
	if err != nil {
		return nil, toStatus(s.log, err)
	}
	set, changed, err := s.edit(ctx, request.GetName(), request.GetEtag(), edits, request.GetValidateOnly())
	if err != nil {
		return nil, toStatus(s.log, err)
	}
	return &namewardv1.AddDomainsResponse{DomainSet: set.Header(), AddedCount: changed}, nil
}

// RemoveDomains removes domains from a set.
func (s *DomainSetService) RemoveDomains(ctx context.Context, request *namewardv1.RemoveDomainsRequest) (*namewardv1.RemoveDomainsResponse, error) {
	edits, err := editsOf(request.GetDomains(), false)
	if err != nil {
		return nil, toStatus(s.log, err)
	}
	set, changed, err := s.edit(ctx, request.GetName(), request.GetEtag(), edits, request.GetValidateOnly())
	if err != nil {
		return nil, toStatus(s.log, err)
	}
	return &namewardv1.RemoveDomainsResponse{DomainSet: set.Header(), RemovedCount: -changed}, nil
}

// editsOf reads domains and says of each whether a set shall have it.
func editsOf(texts []string, wanted bool) (map[domain.Pattern]bool, error) {
	domains, err := policy.ParseDomains(texts, 0)
	if err != nil {
		return nil, err
	}
	edits := make(map[domain.Pattern]bool, len(domains))
	for _, pattern := range domains {
		edits[pattern] = wanted
	}
	return edits, nil
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

// ReplaceDomains replaces all domains of a set by those of the stream.
func (s *DomainSetService) ReplaceDomains(stream grpc.ClientStreamingServer[namewardv1.ReplaceDomainsRequest, namewardv1.ReplaceDomainsResponse]) error {
	first, domains, err := receiveDomains(stream)
	if err != nil {
		return toStatus(s.log, err)
	}
	wanted := ruleset.NewDomainSet(first.GetName(), domains)
	response := &namewardv1.ReplaceDomainsResponse{}
	set, err := winRaces(first.GetEtag(), first.GetAllowMissing(), func() (*policy.DomainSet, error) {
		next, guard := &policy.DomainSet{}, store.Guard{Etag: first.GetEtag(), MustNotExist: true}
		current, err := s.store.DomainSet(wanted.Name)
		switch {
		case errors.Is(err, store.ErrNotFound) && first.GetAllowMissing():
		case err != nil:
			return nil, err
		default:
			if err := (store.Guard{Etag: first.GetEtag()}).Check(wanted.Name, current.Etag); err != nil {
				return nil, err
			}
			*next, guard = *current, store.Guard{Etag: current.Etag, MustExist: true}
		}
		removed, added := ruleset.Difference(next.Domains, wanted.Domains)
		response.RemovedCount, response.AddedCount = int32(len(removed)), int32(len(added)) //nolint:gosec // at most MaxDomains
		next.DomainSet = wanted
		return s.put(stream.Context(), next, guard, first.GetValidateOnly())
	})
	if err != nil {
		return toStatus(s.log, err)
	}
	response.DomainSet = set.Header()
	return toStatus(s.log, stream.SendAndClose(response))
}

// receiveDomains returns the first message of a stream and the domains of all. An error joins a
// *ruleset.FieldError for every fault.
func receiveDomains(stream grpc.ClientStreamingServer[namewardv1.ReplaceDomainsRequest, namewardv1.ReplaceDomainsResponse]) (*namewardv1.ReplaceDomainsRequest, []domain.Pattern, error) {
	var (
		first    *namewardv1.ReplaceDomainsRequest
		domains  []domain.Pattern
		faults   []error
		received int
	)
	for {
		message, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && first == nil:
			return nil, nil, nameFault("", "must be set in the first message")
		case errors.Is(err, io.EOF):
			return first, domains, errors.Join(faults...)
		case err != nil:
			return nil, nil, err
		case first == nil && message.GetName() == "":
			faults = append(faults, nameFault("", "must be set in the first message"))
		case first != nil && message.GetName() != "" && message.GetName() != first.GetName():
			faults = append(faults, nameFault(message.GetName(), "is not the name in the first message"))
		}
		if first == nil {
			first = &namewardv1.ReplaceDomainsRequest{
				Name: message.GetName(), Etag: message.GetEtag(), AllowMissing: message.GetAllowMissing(), ValidateOnly: message.GetValidateOnly(),
			}
		}
		parsed, err := policy.ParseDomains(message.GetDomains(), received)
		if err != nil {
			for _, fault := range fieldErrors(err) {
				faults = append(faults, fault)
			}
		}
		if len(faults) > maxStreamFaults {
			return nil, nil, errors.Join(faults...)
		}
		received += len(message.GetDomains())
		if domains = append(domains, parsed...); len(domains) > policy.MaxDomains {
			if domains = distinct(domains); len(domains) > policy.MaxDomains {
				return nil, nil, errors.Join(append(faults, tooLarge(first.GetName()))...)
			}
		}
	}
}

func nameFault(value, reason string) error {
	return &ruleset.FieldError{Field: "name", Value: value, Reason: reason}
}

func distinct(domains []domain.Pattern) []domain.Pattern {
	slices.SortFunc(domains, func(a, b domain.Pattern) int { return strings.Compare(a.String(), b.String()) })
	return slices.Compact(domains)
}

// ListDomains lists the domains of a set.
func (s *DomainSetService) ListDomains(_ context.Context, request *namewardv1.ListDomainsRequest) (*namewardv1.ListDomainsResponse, error) {
	after, err := parsePageToken(domainsOf(request.GetName()), request.GetPageToken())
	if err != nil {
		return nil, toStatus(s.log, err)
	}
	set, err := s.store.DomainSet(request.GetName())
	if err != nil {
		return nil, toStatus(s.log, err)
	}
	domains := set.Domains
	at, found := slices.BinarySearchFunc(domains, after, func(p domain.Pattern, text string) int { return strings.Compare(p.String(), text) })
	if found {
		at++
	}
	domains = domains[at:]
	size := min(len(domains), domainPageSize(request.GetPageSize()))
	response := &namewardv1.ListDomainsResponse{Domains: policy.Texts(domains[:size]), Etag: set.Etag}
	if size < len(domains) {
		response.NextPageToken = pageToken(domainsOf(set.Name), response.GetDomains()[size-1])
	}
	return response, nil
}

// domainsOf is the collection of the domains of a set, for page tokens.
func domainsOf(domainSet string) string { return "domains of " + domainSet }
