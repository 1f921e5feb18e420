package flow

import (
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/nameward/nameward/api/domain"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/api/ruleset"
)

// Filter selects flow events that match all of its fields that are not zero.
type Filter struct {
	// Domain matches a name of the destination, or the name that was asked for.
	Domain domain.Pattern
	// Addresses contains the destination.
	Addresses netip.Prefix
	Node      node.ID
	// Policy is the resource name of the policy whose rule decided.
	Policy string
	// Mode is that of the policies; HasMode says that it counts.
	Mode    ruleset.Mode
	HasMode bool

	// Of the workload, one at most: source addresses, the node itself, one of its users.
	sources netip.Prefix
	host    bool
	uid     *uint32
}

// ParseFilter checks a filter, which is in that field of a request. An error joins a *ruleset.FieldError
// for every fault, with paths from the request: `filter.domain`.
func ParseFilter(path string, message *namewardv1.FlowEventFilter) (Filter, error) {
	f := Filter{Policy: message.GetPolicy()}
	var faults []error
	parse := func(field, value string, parse func() error) {
		if value == "" {
			return
		}
		if err := parse(); err != nil {
			faults = append(faults, &ruleset.FieldError{Field: path + "." + field, Value: value, Reason: err.Error()})
		}
	}
	parse("domain", message.GetDomain(), func() (err error) {
		f.Domain, err = domain.ParsePattern(message.GetDomain())
		return err
	})
	parse("address", message.GetAddress(), func() (err error) {
		f.Addresses, err = parseAddresses(message.GetAddress())
		return err
	})
	parse("node", message.GetNode(), func() (err error) {
		f.Node, err = node.ParseResourceName(message.GetNode())
		return err
	})
	parse("workload", message.GetWorkload(), func() error { return f.parseWorkload(message.GetWorkload()) })
	if message.GetPolicy() != "" {
		if err := ruleset.CheckPolicyName(path+".policy", message.GetPolicy()); err != nil {
			faults = append(faults, err)
		}
	}
	parse("mode", message.GetMode().String(), func() error { return f.parseMode(message.GetMode()) })
	return f, errors.Join(faults...)
}

func (f *Filter) parseMode(mode namewardv1.Policy_Mode) error {
	switch mode {
	case namewardv1.Policy_MODE_UNSPECIFIED:
		return nil
	case namewardv1.Policy_ENFORCE:
	case namewardv1.Policy_AUDIT:
		f.Mode = ruleset.Audit
	default:
		return errors.New("is neither ENFORCE nor AUDIT")
	}
	f.HasMode = true
	return nil
}

func (f *Filter) parseWorkload(text string) (err error) {
	if text == "host" {
		f.host = true
		return nil
	}
	if number, ok := strings.CutPrefix(text, "uid:"); ok {
		uid, err := strconv.ParseUint(number, 10, 32)
		if err != nil {
			return errors.New("is not `uid:N` with a number of a user")
		}
		f.uid = new(uint32)
		*f.uid = uint32(uid)
		return nil
	}
	if f.sources, err = parseAddresses(text); err != nil {
		return errors.New("is neither an address, nor a CIDR, nor `uid:N`, nor `host`")
	}
	return nil
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

// Match reports whether the filter selects an event of a node.
func (f *Filter) Match(from node.ID, e *Event) bool {
	switch {
	case f.Node != node.ID{} && f.Node != from:
	case f.HasMode && f.Mode != e.Mode:
	case f.Policy != "" && f.Policy != e.Policy:
	case f.Addresses.IsValid() && !f.Addresses.Contains(e.Destination.Address):
	case !f.matchWorkload(e.Workload):
	default:
		return f.Domain == domain.Pattern{} || f.Domain.Match(e.Question) || slices.ContainsFunc(e.Domains, f.Domain.Match)
	}
	return false
}

func (f *Filter) matchWorkload(w Workload) bool {
	switch {
	case f.host:
		return w.Host
	case f.uid != nil:
		return w.HasUID && w.UID == *f.uid
	case f.sources.IsValid():
		return f.sources.Contains(w.Address)
	}
	return true
}
