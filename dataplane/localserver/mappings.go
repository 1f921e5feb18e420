package localserver

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/nameward/nameward/api/domain"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/api/token"
	"github.com/nameward/nameward/dataplane/observe"
)

const (
	defaultPage = 100
	largestPage = 1000
)

// ListMappings lists the live mappings in order of domain and address, a page at a time.
func (s *Server) ListMappings(_ context.Context, request *namewardv1.ListMappingsRequest) (*namewardv1.ListMappingsResponse, error) {
	s.agent.TakeIn()
	keep, err := s.filter("filter", request.GetFilter())
	after, pageErr := parsePlace(request)
	if err := errors.Join(err, pageErr); err != nil {
		return nil, invalid(err)
	}
	live := s.table.Live(time.Now(), keep)
	first, found := slices.BinarySearchFunc(live, after, func(m observe.Mapping, k place) int { return placeOf(&m).compare(k) })
	if found {
		first++
	}
	size := min(cmp.Or(int(request.GetPageSize()), defaultPage), largestPage)
	page := live[first:min(first+size, len(live))]
	response := &namewardv1.ListMappingsResponse{}
	for i := range page {
		response.Mappings = append(response.Mappings, page[i].ToProto(s.node, time.Now()))
	}
	if first+len(page) < len(live) {
		response.NextPageToken = token.Page(request, placeOf(&page[len(page)-1]).String())
	}
	return response, nil
}

// filter returns what selects mappings. The message is in that field of a request.
func (s *Server) filter(path string, message *namewardv1.MappingFilter) (func(*observe.Mapping) bool, error) {
	var keep []func(*observe.Mapping) bool
	var errs []error
	if text := message.GetDomain(); text != "" {
		pattern, err := domain.ParsePattern(text)
		if err != nil {
			errs = append(errs, fieldError(path+".domain", text, err.Error()))
		}
		keep = append(keep, func(m *observe.Mapping) bool {
			return pattern.Match(m.Domain) || slices.ContainsFunc(m.Chain, pattern.Match)
		})
	}
	if text := message.GetAddress(); text != "" {
		prefix, err := parsePrefix(text)
		if err != nil {
			errs = append(errs, fieldError(path+".address", text, "is neither an address nor a CIDR"))
		}
		keep = append(keep, func(m *observe.Mapping) bool { return prefix.Contains(m.Address) })
	}
	if text := message.GetNode(); text != "" {
		id, err := node.ParseResourceName(text)
		if err != nil {
			errs = append(errs, fieldError(path+".node", text, err.Error()))
		}
		keep = append(keep, func(*observe.Mapping) bool { return id == s.node })
	}
	if text := message.GetPolicy(); text != "" {
		covered := s.coveredBy(text)
		if covered == nil {
			errs = append(errs, fieldError(path+".policy", text, "is no policy of the rule set in force"))
		}
		keep = append(keep, func(m *observe.Mapping) bool { return covered(m.Domain) || slices.ContainsFunc(m.Chain, covered) })
	}
	return func(m *observe.Mapping) bool {
		return !slices.ContainsFunc(keep, func(k func(*observe.Mapping) bool) bool { return !k(m) })
	}, errors.Join(errs...)
}

// coveredBy returns whether a pattern of a policy's rules matches a name, or one of their domain sets; nil when the
// rule set in force does not have the policy.
func (s *Server) coveredBy(policy string) func(domain.Name) bool {
	rules := s.agent.Rules()
	if rules == nil {
		return nil
	}
	at := slices.IndexFunc(rules.Policies, func(p ruleset.Policy) bool { return p.Name == policy })
	if at < 0 {
		return nil
	}
	return func(name domain.Name) bool { return rules.Covers(rules.Policies[at], name) }
}

func parsePrefix(text string) (netip.Prefix, error) {
	if strings.Contains(text, "/") {
		prefix, err := netip.ParsePrefix(text)
		return prefix.Masked(), err //nolint:wrapcheck // the caller says it in the words of the field
	}
	address, err := netip.ParseAddr(text)
	address = address.Unmap().WithZone("")
	return netip.PrefixFrom(address, address.BitLen()), err //nolint:wrapcheck // as above
}

// place is where a mapping stands in the list.
type place struct {
	domain  string
	address netip.Addr
}

func placeOf(m *observe.Mapping) place { return place{m.Domain.String(), m.Address} }

func (p place) compare(other place) int {
	return cmp.Or(strings.Compare(p.domain, other.domain), p.address.Compare(other.address))
}

// String returns the place as page tokens hold it: neither names nor addresses have a space.
func (p place) String() string { return p.domain + " " + p.address.String() }

func parsePlace(request *namewardv1.ListMappingsRequest) (place, error) {
	text, err := parsePage(request)
	if err != nil || text == "" {
		return place{}, err
	}
	name, addressText, _ := strings.Cut(text, " ")
	address, err := netip.ParseAddr(addressText)
	if err != nil {
		return place{}, badPageToken(request)
	}
	return place{name, address}, nil
}
