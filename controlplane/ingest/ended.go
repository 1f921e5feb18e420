package ingest

import (
	"net/netip"
	"slices"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/node"
)

// endedMappings is how many mappings of the fleet are remembered after their expiry, to say why what was
// open is closed.
const endedMappings = 65_536

// endedLog holds the mappings that expired last.
type endedLog struct {
	mappings []*Mapping
	next     int // where the next one goes, once the log is full
}

func (l *endedLog) add(m *Mapping) {
	if len(l.mappings) < endedMappings {
		l.mappings = append(l.mappings, m)
		return
	}
	l.mappings[l.next] = m
	l.next = (l.next + 1) % endedMappings
}

// forget drops what is remembered of a node.
func (l *endedLog) forget(id node.ID) {
	// In order of their end, so that the oldest stays the next to go.
	inOrder := slices.Concat(l.mappings[l.next:], l.mappings[:l.next])
	l.mappings, l.next = slices.DeleteFunc(inOrder, func(m *Mapping) bool { return m.Node == id }), 0
}

// OfName returns the mappings of a name on a node, in no order: of the name that was asked, of an alias or
// a former one. Among them are those that expired and are still remembered: Expires tells.
func (t *Table) OfName(id node.ID, name domain.Name) []*Mapping {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var found []*Mapping
	for item := range t.byDomain.from(named(at(Position{Domain: name}))) {
		if item.name != name {
			break
		}
		if item.entry.Node == id {
			found = append(found, item.entry.Mapping)
		}
	}
	for item := range t.byAlias.from(alias{name, at(Position{})}) {
		if item.name != name {
			break
		}
		if item.entry.Node == id && item.entry.Domain != name {
			found = append(found, item.entry.Mapping)
		}
	}
	for _, m := range t.ended.mappings {
		if m.Node == id && (m.Domain == name || slices.Contains(m.aliases(), name)) {
			found = append(found, m)
		}
	}
	return found
}

// OfAddresses returns the mappings of addresses on a node in the same way.
func (t *Table) OfAddresses(id node.ID, addresses []netip.Addr) []*Mapping {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var found []*Mapping
	wanted := make(map[netip.Addr]bool, len(addresses))
	for _, address := range addresses {
		wanted[address] = true
	}
	for address := range wanted {
		for item := range t.byAddress.from(addressedBy(at(Position{Address: address}))) {
			if item.address != address {
				break
			}
			if item.entry.Node == id {
				found = append(found, item.entry.Mapping)
			}
		}
	}
	for _, m := range t.ended.mappings {
		if m.Node == id && wanted[m.Address] {
			found = append(found, m)
		}
	}
	return found
}
