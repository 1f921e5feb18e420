package observe

import (
	"net/netip"
	"slices"
)

// group is the mappings of one asked name.
type group struct {
	entries []*entry
	// of their addresses; nil while they are few, as those of nearly all names are
	byAddress map[netip.Addr]*entry
	seen      [2]instant // the last answer to a question for IPv4 addresses, for IPv6 ones
}

const fewEntries = 16

func (g *group) find(address netip.Addr) *entry {
	if g.byAddress != nil {
		return g.byAddress[address]
	}
	for _, e := range g.entries {
		if e.address == address {
			return e
		}
	}
	return nil
}

func (g *group) add(e *entry) {
	g.entries = append(g.entries, e)
	switch {
	case g.byAddress != nil:
		g.byAddress[e.address] = e
	case len(g.entries) > fewEntries:
		g.byAddress = make(map[netip.Addr]*entry, len(g.entries))
		for _, e := range g.entries {
			g.byAddress[e.address] = e
		}
	}
}

func (g *group) remove(e *entry) {
	i := slices.Index(g.entries, e)
	g.entries = slices.Delete(g.entries, i, i+1)
	if g.byAddress != nil {
		delete(g.byAddress, e.address)
	}
}

// saw notes when a question for addresses was answered.
func (g *group) saw(address netip.Addr, answered instant) {
	seen := &g.seen[family(address)]
	*seen = max(*seen, answered)
}

func family(address netip.Addr) int {
	if address.Is4() {
		return 0
	}
	return 1
}
