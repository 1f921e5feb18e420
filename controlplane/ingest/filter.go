package ingest

import (
	"errors"
	"net/netip"
	"slices"
	"strings"

	"github.com/nameward/nameward/api/domain"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/api/ruleset"
)

// Filter selects mappings that match all of its fields that are not zero.
type Filter struct {
	// Domain matches the name asked or one of its aliases.
	Domain domain.Pattern
	// Addresses contains the address.
	Addresses netip.Prefix
	Node      node.ID
	// Of is true of the nodes whose mappings count; nil for all. It is called under the table's lock.
	Of func(node.ID) bool
	// Covered is true of the name asked or of one of its aliases. It is called under the table's lock.
	Covered func(domain.Name) bool
}

// ParseFilter checks a filter. An error joins a *ruleset.FieldError for every fault, with paths from the
// request: `filter.domain`.
func ParseFilter(message *namewardv1.MappingFilter) (Filter, error) {
	var filter Filter
	var faults []error
	var err error
	fault := func(field, value string, err error) {
		if err != nil {
			faults = append(faults, &ruleset.FieldError{Field: "filter." + field, Value: value, Reason: err.Error()})
		}
	}
	if text := message.GetDomain(); text != "" {
		filter.Domain, err = domain.ParsePattern(text)
		fault("domain", text, err)
	}
	if text := message.GetAddress(); text != "" {
		filter.Addresses, err = parseAddresses(text)
		fault("address", text, err)
	}
	if text := message.GetNode(); text != "" {
		filter.Node, err = node.ParseResourceName(text)
		fault("node", text, err)
	}
	return filter, errors.Join(faults...)
}

func parseAddresses(text string) (netip.Prefix, error) {
	if !strings.Contains(text, "/") {
		address, err := netip.ParseAddr(text)
		if err != nil {
			return netip.Prefix{}, errors.New("is neither an address nor a CIDR")
		}
		address = address.Unmap().WithZone("")
		return netip.PrefixFrom(address, address.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, errors.New("is no CIDR")
	}
	return prefix.Masked(), nil
}

// Match reports whether the filter selects a mapping.
func (f Filter) Match(m *Mapping) bool {
	if f.Node != (node.ID{}) && f.Node != m.Node {
		return false
	}
	if f.Of != nil && !f.Of(m.Node) {
		return false
	}
	if f.Addresses.IsValid() && !f.Addresses.Contains(m.Address) {
		return false
	}
	if (f.Domain != domain.Pattern{}) && !m.anyName(f.Domain.Match) {
		return false
	}
	return f.Covered == nil || m.anyName(f.Covered)
}

// anyName reports whether the test is true of the name asked or of one of its aliases.
func (m *Mapping) anyName(test func(domain.Name) bool) bool {
	return test(m.Domain) || slices.ContainsFunc(m.Chain, test)
}
