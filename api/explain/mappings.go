package explain

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/nameward/nameward/api/domain"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

// Mappings are those that a node has, and those that ended and are still remembered.
type Mappings interface {
	// OfName returns the mappings of a name: of the asked name, of an alias, of a former alias.
	OfName(name domain.Name) []Mapping
	// OfAddresses returns the mappings of addresses.
	OfAddresses(addresses []netip.Addr) []Mapping
}

// Mapping is what a node saw: the asked name had the address.
type Mapping struct {
	Domain    domain.Name
	Chain     []domain.Name
	Former    []Former
	Address   netip.Addr
	ExpiresAt time.Time
	// Message is the mapping as clients read it.
	Message func() *namewardv1.Mapping
}

// Former is an alias that left the chain, and opens the address until a time of its own.
type Former struct {
	Name      domain.Name
	ExpiresAt time.Time
}

// owner is a name of an address.
type owner struct {
	name      domain.Name
	asked     domain.Name // the question that led to it
	former    bool        // it left the chain
	expiresAt time.Time
}

// each calls f for every name that the address of m has or had by it.
func (m *Mapping) each(f func(owner)) {
	f(owner{m.Domain, m.Domain, false, m.ExpiresAt})
	for _, alias := range m.Chain {
		f(owner{alias, m.Domain, false, m.ExpiresAt})
	}
	for _, alias := range m.Former {
		f(owner{alias.Name, m.Domain, true, alias.ExpiresAt})
	}
}

// owners are the names of one address.
type owners struct {
	live  []owner // by name, each once
	ended []owner // those of no live mapping, that which ended last first
}

// ownersOf returns the names of an address, by mappings of which some are its.
func ownersOf(address netip.Addr, mappings []Mapping, now time.Time) owners {
	latest := map[domain.Name]owner{}
	for i := range mappings {
		if mappings[i].Address != address {
			continue
		}
		mappings[i].each(func(o owner) {
			if known, ok := latest[o.name]; !ok || better(o, known) {
				latest[o.name] = o
			}
		})
	}
	var all owners
	for _, o := range latest {
		if o.expiresAt.After(now) {
			all.live = append(all.live, o)
		} else {
			all.ended = append(all.ended, o)
		}
	}
	slices.SortFunc(all.live, byName)
	slices.SortFunc(all.ended, func(a, b owner) int {
		if order := b.expiresAt.Compare(a.expiresAt); order != 0 {
			return order
		}
		return byName(a, b)
	})
	return all
}

// better reports whether a says more of a name than b: it lives longer, or is told in fewer words.
func better(a, b owner) bool {
	switch order := a.expiresAt.Compare(b.expiresAt); {
	case order != 0:
		return order > 0
	case a.former != b.former:
		return !a.former
	default:
		return a.asked == a.name && b.asked != b.name || (a.asked == a.name) == (b.asked == b.name) && a.asked.String() < b.asked.String()
	}
}

func byName(a, b owner) int { return strings.Compare(a.name.String(), b.name.String()) }

func (o owners) names() []domain.Name {
	names := make([]domain.Name, 0, len(o.live))
	for _, owner := range o.live {
		names = append(names, owner.name)
	}
	return names
}

// of returns how the address came by a live name.
func (o owners) of(name domain.Name) (owner, bool) {
	for _, owner := range o.live {
		if owner.name == name {
			return owner, true
		}
	}
	return owner{}, false
}

// split parts the live mappings from those that ended. A mapping that ended and lives again is live.
func split(mappings []Mapping, now time.Time) (live, ended []Mapping) {
	type pair struct {
		name    domain.Name
		address netip.Addr
	}
	seen := map[pair]bool{}
	for _, m := range mappings {
		if m.ExpiresAt.After(now) && !seen[pair{m.Domain, m.Address}] {
			seen[pair{m.Domain, m.Address}] = true
			live = append(live, m)
		}
	}
	slices.SortStableFunc(mappings, func(a, b Mapping) int { return b.ExpiresAt.Compare(a.ExpiresAt) })
	for _, m := range mappings {
		if !m.ExpiresAt.After(now) && !seen[pair{m.Domain, m.Address}] {
			seen[pair{m.Domain, m.Address}] = true
			ended = append(ended, m)
		}
	}
	slices.SortFunc(live, inOrder)
	return live, ended
}

// inOrder orders mappings by name and address.
func inOrder(a, b Mapping) int {
	if order := strings.Compare(a.Domain.String(), b.Domain.String()); order != 0 {
		return order
	}
	return a.Address.Compare(b.Address)
}
