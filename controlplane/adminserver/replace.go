package adminserver

import (
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

// ReplaceDomains replaces all domains of a set by those of the stream.
func (s *DomainSetService) ReplaceDomains(stream grpc.ClientStreamingServer[namewardv1.ReplaceDomainsRequest, namewardv1.ReplaceDomainsResponse]) error {
	received, err := receiveDomains(stream.Recv)
	if err != nil {
		return toStatus(s.log, err)
	}
	first, wanted := received.first, ruleset.NewDomainSet(received.first.GetName(), received.domains)
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

// received is what has come of a stream.
type received struct {
	// first has what the first message says of the set and the conditions.
	first   *namewardv1.ReplaceDomainsRequest
	domains []domain.Pattern
	// count is how many domains have come, those with a fault and duplicates among them.
	count  int
	faults []error
}

// receiveDomains takes in a stream to its end. An error joins a *ruleset.FieldError for every fault.
func receiveDomains(receive func() (*namewardv1.ReplaceDomainsRequest, error)) (*received, error) {
	r := &received{}
	for {
		message, err := receive()
		switch {
		case errors.Is(err, io.EOF):
			if r.first == nil {
				r.nameFault("", "must be set in the first message")
			}
			return r, errors.Join(r.faults...)
		case err != nil:
			return nil, err
		}
		r.take(message)
		if len(r.faults) > maxStreamFaults {
			return nil, errors.Join(r.faults...)
		}
		if len(r.domains) > policy.MaxDomains {
			if r.domains = distinct(r.domains); len(r.domains) > policy.MaxDomains {
				return nil, errors.Join(append(r.faults, tooLarge(r.first.GetName()))...)
			}
		}
	}
}

func (r *received) take(message *namewardv1.ReplaceDomainsRequest) {
	switch name := message.GetName(); {
	case r.first == nil && name == "":
		r.nameFault("", "must be set in the first message")
	case r.first.GetName() != "" && name != "" && name != r.first.GetName():
		r.nameFault(name, "is not the name in the first message")
	}
	if r.first == nil {
		r.first = &namewardv1.ReplaceDomainsRequest{
			Name: message.GetName(), Etag: message.GetEtag(), AllowMissing: message.GetAllowMissing(), ValidateOnly: message.GetValidateOnly(),
		}
	}
	r.conditions(message)
	domains, err := parseDomains(message.GetDomains(), r.count)
	for _, fault := range ruleset.FieldErrors(err) {
		r.faults = append(r.faults, fault)
	}
	r.count += len(message.GetDomains())
	r.domains = append(r.domains, domains...)
}

// conditions refuses what a message asks for that the first did not, by which alone the stream goes: whoever only wants
// it checked, or only while the set has an etag, must not find it replaced.
func (r *received) conditions(message *namewardv1.ReplaceDomainsRequest) {
	late := func(field, value string) {
		r.faults = append(r.faults, &ruleset.FieldError{Field: field, Value: value, Reason: "must be set in the first message, which speaks for the whole stream"})
	}
	if etag := message.GetEtag(); etag != "" && etag != r.first.GetEtag() {
		late("etag", etag)
	}
	if message.GetAllowMissing() && !r.first.GetAllowMissing() {
		late("allow_missing", "true")
	}
	if message.GetValidateOnly() && !r.first.GetValidateOnly() {
		late("validate_only", "true")
	}
}

func (r *received) nameFault(value, reason string) {
	r.faults = append(r.faults, &ruleset.FieldError{Field: "name", Value: value, Reason: reason})
}

func distinct(domains []domain.Pattern) []domain.Pattern {
	slices.SortFunc(domains, func(a, b domain.Pattern) int { return strings.Compare(a.String(), b.String()) })
	return slices.Compact(domains)
}
