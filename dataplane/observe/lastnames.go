package observe

import (
	"container/list"
	"net/netip"
	"slices"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/flow"
)

// namedAddresses is of how many addresses the last names are remembered.
const namedAddresses = 65_536

// lastNames holds the names under which addresses were last seen, whether they still live or not. At its
// capacity the address that was not seen for longest goes.
type lastNames struct {
	capacity  int
	addresses map[netip.Addr]*list.Element
	recent    *list.List // of *namedAddress, the one that was seen last at the back
}

type namedAddress struct {
	address netip.Addr
	names   []domain.Name // the newest first; replaced, never changed
}

func newLastNames(capacity int) lastNames {
	return lastNames{capacity: capacity, addresses: map[netip.Addr]*list.Element{}, recent: list.New()}
}

// put makes name the last one of an address.
func (l *lastNames) put(address netip.Addr, name domain.Name) {
	element := l.addresses[address]
	if element == nil {
		if len(l.addresses) >= l.capacity {
			oldest := l.recent.Front()
			delete(l.addresses, oldest.Value.(*namedAddress).address) //nolint:forcetypeassert // nothing else is in the list
			l.recent.Remove(oldest)
		}
		element = l.recent.PushBack(&namedAddress{address: address})
		l.addresses[address] = element
	}
	l.recent.MoveToBack(element)
	known := element.Value.(*namedAddress) //nolint:forcetypeassert // see above
	if len(known.names) > 0 && known.names[0] == name {
		return
	}
	names := make([]domain.Name, 1, min(len(known.names)+1, flow.MaxDomains))
	names[0] = name
	for _, old := range known.names {
		if old != name && len(names) < flow.MaxDomains {
			names = append(names, old)
		}
	}
	known.names = slices.Clip(names)
}

// of returns the names of an address, the newest first.
func (l *lastNames) of(address netip.Addr) []domain.Name {
	element := l.addresses[address]
	if element == nil {
		return nil
	}
	return element.Value.(*namedAddress).names //nolint:forcetypeassert // see above
}
